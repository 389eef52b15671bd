"""How are differences and leaderboards read? As tables, which tables.py sets for console, markdown and LaTeX."""

from collections.abc import Iterator

import pandas as pd

from avbench.report.tables import ARROWS, Cell, SubsetTable, number, p_value

DIFFERENCES_LEGEND = (
    "Δ is the run's number less the other's, on the clips that both have; for ≈ it is that of their distances from the "
    "reference's value, so that below 0 the run is nearer. Intervals are 95 %, over prompts; a distance between "
    "distributions has none. p swaps labels within pairs; Holm's counts the whole family. Detectable is the smallest "
    "true difference that 80 % of such comparisons find. Bold is shown to be better."
)
BOARD_LEGEND = (
    "± is the half-width of a 95 % interval over prompts. In brackets the rank, with the places that the data leave "
    "open. Rows that share a letter are not told apart (t-tests over prompts, Holm over the pairs of a column). Bold "
    "is what may be first, where not everything may. macro lets every subset count the same, micro every clip."
)
POWER_LEGEND = (
    "The smallest true difference that 80 % of such experiments find at 5 %, after Holm. Columns: prompts × seeds. A "
    "pilot with one seed a prompt says nothing about more seeds."
)


def difference_tables(frame: pd.DataFrame) -> Iterator[SubsetTable]:
    """Lay out `differences.differences`: a table a pair of runs and subset, a row a metric."""
    for (run, against, subset), group in frame.groupby(["run", "against", "subset"], sort=False):
        notes: list[str] = []
        rows = [(_head(row), _difference_cells(row, notes)) for _, row in group.iterrows()]
        columns = ["Δ", "interval", "p", "p Holm", "detectable", "clips", "better"]
        family = group["family"].max()
        title = f"{subset}: {run} − {against}" + ("" if pd.isna(family) else f" (family of {family:.0f} comparisons)")
        yield SubsetTable(title, columns, rows, notes, head="metric")


def board_tables(frame: pd.DataFrame) -> Iterator[SubsetTable]:
    """Lay out `leaderboard.leaderboard`: a table a subset, a row a model, by the mean of its ranks."""
    for subset, of_subset in frame.groupby("subset", sort=False):
        metrics = list(of_subset["metric"].unique())
        places = of_subset.groupby("model", sort=False)["rank"].mean().sort_values(kind="stable", na_position="last")
        cells = of_subset.set_index(["model", "metric"])
        notes: list[str] = []
        rows = [(str(model), [_board_cell(cells, model, name, notes) for name in metrics]) for model in places.index]
        heads = of_subset.drop_duplicates("metric").set_index("metric", drop=False)
        yield SubsetTable(str(subset), [_head(heads.loc[name]) for name in metrics], rows, notes)


def power_tables(frame: pd.DataFrame) -> Iterator[SubsetTable]:
    """Lay out `power.planned`: a table a subset, a row a metric, a column a design."""
    for subset, of_subset in frame.groupby("subset", sort=False):
        designs = sorted({*zip(of_subset["seeds"], of_subset["prompts"], strict=True)})
        found = of_subset.set_index(["metric", "seeds", "prompts"])["detectable"].to_dict()
        rows = [
            (str(name), [_planned(found.get((name, *design))) for design in designs])
            for name in of_subset["metric"].unique()
        ]
        yield SubsetTable(str(subset), [f"{count} × {seeds}" for seeds, count in designs], rows, [], head="metric")


def _planned(detectable: float | None) -> Cell:
    return Cell("" if detectable is None or pd.isna(detectable) else number(detectable))


def _head(row: pd.Series) -> str:
    return " ".join(part for part in (str(row["metric"]), ARROWS[row["direction"]], row["unit"]) if part)


def _difference_cells(row: pd.Series, notes: list[str]) -> list[Cell]:
    if pd.isna(row["difference"]):
        return [Cell(_noted("–", str(row["missing"]), notes)), *[Cell("")] * 6]
    better = isinstance(row["better"], str)
    size = row["difference"] or row["error"]
    delta = number(row["difference"], size, "+")
    remarks = [] if pd.isna(row["mark"]) else [str(row["mark"])]
    if not row["paired"]:
        remarks.append("unpaired: the runs share no (prompt, seed)")
    if row["dropped"]:
        remarks.append(f"{row['dropped']:.0f} clips that only one of the runs has were left out")
    if isinstance(row["verdict"], str):
        remarks.append(f"{row['verdict']}, to a margin of {row['margin']:g}")
    interval = "" if pd.isna(row["low"]) else f"{number(row['low'], size, '+')} … {number(row['high'], size, '+')}"
    holm = "exploratory" if pd.isna(row["p_holm"]) else p_value(row["p_holm"])
    detectable = "" if pd.isna(row["detectable"]) else number(row["detectable"], size)
    texts = [
        delta,
        interval,
        p_value(row["p"]),
        holm,
        detectable,
        f"{row['pairs']:.0f}",
        row["better"] if better else "",
    ]
    if remarks:
        texts[0] = _noted(delta, "; ".join(remarks), notes)
    return [Cell(text, better) for text in texts]


def _board_cell(cells: pd.DataFrame, model: object, metric: str, notes: list[str]) -> Cell:
    if (model, metric) not in cells.index:
        return Cell("")
    row = cells.loc[(model, metric)]
    if pd.isna(row["value"]):
        return Cell(_noted("–", str(row["missing"]), notes))
    text = number(row["value"])
    if pd.notna(row["low"]):
        text += f" ± {number((row['high'] - row['low']) / 2, row['value'])}"
    if pd.notna(row["p"]):
        text += f" ({number(row['excess'], row['value'], '+')}, p {p_value(row['p'])})"
    if row["letters"]:
        low, high = int(row["rank_low"]), int(row["rank_high"])
        text += f" {row['letters']} ({low}–{high})" if low < high else f" {row['letters']} ({low})"
    if pd.notna(row["mark"]):
        text = _noted(text, str(row["mark"]), notes)
    return Cell(text, bool(row["best"]))


def _noted(text: str, note: str, notes: list[str]) -> str:
    if note not in notes:
        notes.append(note)
    return f"{text} [{notes.index(note) + 1}]"
