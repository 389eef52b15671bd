"""Writes the folder of a comparison of arms: tables, a figure of every training for each metric, and the page."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from avbench.comparison.arm_differences import ArmTables
from avbench.core import csv_text
from avbench.core.version import __version__
from avbench.report import arm_tables, tables
from avbench.report.folder import locked
from avbench.report.page import plots, svg
from avbench.report.page.page import STYLE, template
from avbench.storage.writing import write_whole

FIGURES_LEGEND = (
    "A dot is a training. Below the dots stand the arm's mean and its 95 % interval, over trainings and prompts (of a "
    "distance, over trainings). The dashed line in an arm's row is the reference's value, which should be matched. "
    "Whether two arms differ, the tables say: intervals of arms may overlap where paired trainings differ surely."
)

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""The content security policy of the page: no script, no network."""


def write_arm_report(found: ArmTables, answer: Sequence[str], out: Path) -> Path:
    """Write scores.csv, trainings.csv, differences.csv, arms.md with figures/, and arms.html.

    Args:
        found: the arms side by side.
        answer: the verdict on them.
        out: the folder.

    Returns:
        The page.

    Raises:
        InputError: something cannot be written.
    """
    figures = {
        subset: list(plots.of_trainings(found.scores, found.trainings, subset))
        for subset in dict.fromkeys(found.scores["subset"])
    }
    page = out / "arms.html"
    with locked(out, lambda: None):
        (out / "figures").mkdir(exist_ok=True)
        for subset, of_subset in figures.items():
            for figure in of_subset:
                write_whole(out / _name(subset, figure), svg.as_file(figure.drawing, plots.WIDTH).encode())
        write_whole(out / "arms.md", markdown(found, answer, figures).encode())
        for name, frame in (
            ("scores", found.scores),
            ("trainings", found.trainings),
            ("differences", found.differences),
        ):
            write_whole(out / f"{name}.csv", csv_text(frame).encode())
        write_whole(page, _page(found, answer, figures).encode())
    return page


def markdown(found: ArmTables, answer: Sequence[str], figures: dict[str, list[plots.Figure]] | None = None) -> str:
    """The answer and the tables as markdown, with links to the figures that were written."""
    lines = [f"- {tables.escaped(sentence)}" for sentence in answer]
    for subset, of_subset in (figures or {}).items():
        lines += ["", *(f"![{subset}: {figure.title}]({_name(subset, figure)})" for figure in of_subset)]
    parts = [
        "\n".join([*lines, ""]),
        tables.set_as_markdown(arm_tables.value_tables(found.scores), arm_tables.VALUES_LEGEND),
        tables.set_as_markdown(arm_tables.difference_tables(found.differences), arm_tables.LEGEND),
    ]
    return "\n".join(parts)


def _page(found: ArmTables, answer: Sequence[str], figures: dict[str, list[plots.Figure]]) -> str:
    of_scores, of_differences = (dict(iter(one.groupby("subset"))) for one in (found.scores, found.differences))
    every = [
        {
            "name": subset,
            "figures": of_subset,
            "tables": [
                *arm_tables.value_tables(of_scores[subset]),
                *(arm_tables.difference_tables(of_differences[subset]) if subset in of_differences else ()),
            ],
        }
        for subset, of_subset in figures.items()
    ]
    names = dict.fromkeys(found.scores["model"])
    return template("arms.html").render(
        arms=[{"name": name, "colour": plots.colour(place)} for place, name in enumerate(names)],
        answer=answer,
        subsets=every,
        figures_legend=FIGURES_LEGEND,
        legend=f"{arm_tables.VALUES_LEGEND} {arm_tables.LEGEND}",
        title=" · ".join(map(str, names)),
        policy=_POLICY,
        style=Markup(STYLE.read_text(encoding="utf-8")),
        version=__version__,
    )


def _name(subset: str, figure: plots.Figure) -> str:
    return f"figures/{subset}-{figure.title}.svg"
