"""Ranks many runs, with the range of ranks that the data allow; runs that are not shown to differ share a letter.

All pairs of runs are tested, on the clips that both have, by a t-test over prompts (`paired.t_test`: permutations would
be too coarse for so many pairs). Holm's correction counts the pairs of one column, a metric on a subset. A run's
best possible rank is one more than the runs shown to be better, its worst all runs less those shown to be worse
(Mohamad, Goeman and van Zwet, 2019); two runs share a letter exactly if they are not shown to differ.

Where the reference's value is right (≈), order is by the distance from it. `macro` lets every subset count the same,
`micro` every clip. Distances between distributions are tested where asked for (label swaps, which take seconds per
pair), and are not pooled.

`best` marks only runs that are shown to be ahead: runs that may be first, in a column where not every run may be, and
that were tested against the leader, the first in rank that is shown to be better than another (`tested`): a run that
shares too few clips with it is not ahead because nothing was tested. For ≈ its interval must hold the reference's value
as well, so that a frozen clip does not win by being nearest. A distance that is not distinguishable from the
reference's is no merit: with few clips none is. A distance that rests on too few clips has no rank.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from avbench.comparison.differences import MACRO, MICRO, differences
from avbench.comparison.score_table import Where, clip_values, real_values, scores_frame, targets
from avbench.core import Direction, InputError, listed
from avbench.metrics.rescoring import rescored
from avbench.metrics.table import Metric, known_metrics
from avbench.statistics import clustered, paired
from avbench.storage.runs.folder import RunFolder

_Values = Mapping[str, Mapping[Where, pd.Series]]
"""Of each model."""

_UNRANKED: dict[str, Any] = {
    **dict.fromkeys(("rank", "rank_low", "rank_high"), np.nan),
    **{"letters": "", "tested": False},
}
"""Columns of a row that has no rank."""


def find(places: Sequence[Path]) -> list[RunFolder]:
    """Return the run folders among these folders and directly inside them, by name. To add a run, put its folder there.

    Raises:
        InputError: there is none.
    """
    runs = [path for place in places for path in (place, *sorted(place.glob("*/"))) if (path / "run.json").is_file()]
    if not runs:
        deeper = dict.fromkeys(str(one.parent.parent) for place in places for one in sorted(place.glob("*/*/run.json")))
        msg = f"no run folder in {', '.join(map(str, places))}: a run folder has a run.json"
        msg += f"; give a folder that holds some: {listed([*deeper])}" if deeper else ""
        raise InputError(msg)
    return [RunFolder(path) for path in dict.fromkeys(runs)]


@threadpool_limits.wrap(limits=1)
def leaderboard(
    folders: Sequence[RunFolder],
    *,
    allow: Sequence[str] = (),
    test_distances: bool = False,
    place: Path | None = None,
    metrics: Sequence[str] | None = None,
) -> pd.DataFrame:
    """One row per subset or pool, metric and model: value, low, high, rank, rank_low, rank_high, letters, tested, best
    and more.

    Args:
        folders: evaluated runs.
        allow: fields in which the runs may differ; a difference in any other field is an error.
        test_distances: whether distances between distributions are tested.
        place: a reference of the user's own, by which the runs are scored again in memory (`rescored`).
        metrics: names of the metrics to rank by; all for None.

    Raises:
        InputError: see `score_table.scores_frame`.
    """
    folders = rescored(folders, place, metrics)
    frame = scores_frame(folders, allow, metrics)
    values, real = ({folder.name: read(folder) for folder in folders} for read in (clip_values, real_values))
    known = known_metrics()
    boards = []
    groups: Any = frame.groupby(["subset", "metric"], sort=False)
    for (_, name), group in groups:
        board = group.assign(**_UNRANKED)
        scored = board.loc[board["value"].notna() & board["too_few"].isna()]
        metric = known[str(name)]
        if metric.per_clip:
            board = _with_ranks(board, scored, metric, _table(scored, values, real))
        elif test_distances and len(scored) > 1:
            compared = _distances_compared(scored, folders, allow, place)
            board = _ranked(board, scored, metric, *compared, scored["value"].to_numpy())
        boards.append(board)
    for name in dict.fromkeys(frame["metric"]):
        of_metric = frame.loc[(frame["metric"] == name) & frame["value"].notna()]
        if known[name].per_clip and len({*of_metric["subset"]}) > 1:
            sizes: Any = of_metric.groupby("model")["n"].nunique()
            uneven = bool(sizes.max() > 1)
            pools = (False, True) if uneven else (False,)  # of subsets of one size both are one
            boards += [_pooled(of_metric, values, real, known[name], micro=micro) for micro in pools]
    board = pd.concat(boards, ignore_index=True)
    for _, column in board.groupby(["subset", "metric"], sort=False):
        board.loc[column.index, "best"] = _best(column)
    return board


def _best(column: pd.DataFrame) -> Any:
    """Which rows of a metric on a subset are bold, as the module's docstring says."""
    ahead = column["tested"] & (column["rank_low"] == 1) & (column["rank_low"].max() > 1)
    if column["direction"].iloc[0] == Direction.BAND:
        return ahead & (column["low"] <= column["reference"]) & (column["reference"] <= column["high"])
    return ahead


class _Table:
    """``[models, clips]`` values of one metric, NaN where a model has none; clips in the order of their prompts."""

    def __init__(
        self,
        series: dict[tuple[str, str], pd.Series],
        aims: dict[str, float | None],
        real: Mapping[str, Sequence[pd.Series]],
    ) -> None:
        """Join the values of several models.

        Args:
            series: (model, subset) → value by (prompt, seed).
            aims: subset → the reference's value, or None.
            real: subset → `real_values` of each model.
        """
        self.models = list(dict.fromkeys(model for model, _ in series))
        of_subset = {
            subset: pd.DataFrame({model: series[model, subset] for model in self.models if (model, subset) in series})
            for subset in dict.fromkeys(subset for _, subset in series)
        }
        whole = pd.concat(of_subset, names=["subset"]).reindex(columns=self.models).sort_index()
        self.values = whole.to_numpy().T
        subset, prompt = (whole.index.get_level_values(name).to_numpy() for name in ("subset", "prompt"))
        new = (subset[1:] != subset[:-1]) | (prompt[1:] != prompt[:-1])
        self.cells = np.concatenate([[0], np.nonzero(new)[0] + 1])
        """Index of each cell's first clip: a cell holds the clips of one prompt in one subset."""
        self.strata, self.stratum = np.unique(subset[self.cells], return_inverse=True)
        """Names of the subsets, and the subset's number of each cell."""
        self.prompt = np.unique(prompt[self.cells], return_inverse=True)[1]
        """The number of each cell's prompt: a prompt that several subsets have is one prompt."""
        self.goal = np.array([np.nan if aims[name] is None else aims[name] for name in self.strata], dtype=float)
        self.goal_of_cells = self.goal[self.stratum]
        for number, name in enumerate(self.strata):
            here = self.stratum == number
            self.goal_of_cells[here] = targets(self.goal[number], [*prompt[self.cells[here]]], *real[name])

    def goals(self) -> np.ndarray:
        """``[models, clips]``: the reference's value where a model has a value and the reference's is known, or NaN."""
        return np.where(np.isnan(self.values), np.nan, self._of_clips(self.goal[self.stratum]))

    def off(self) -> np.ndarray:
        """The numbers that are ranked: the values, or, with a reference's value, their signed distances from it."""
        if np.isnan(self.goal).any():
            return self.values
        apart = self.values - self._of_clips(self.goal_of_cells)
        means = self.means(apart, micro=False).by_stratum
        return self._of_clips(np.where(means >= 0, 1.0, -1.0)[:, self.stratum]) * apart

    def _of_clips(self, of_cells: np.ndarray) -> np.ndarray:
        """``[..., cells]`` → ``[..., clips]``: each cell's number for each of its clips."""
        return np.repeat(of_cells, np.diff([*self.cells, self.values.shape[1]]), axis=-1)

    def means(self, values: np.ndarray, *, micro: bool) -> clustered.Means:
        """Means of ``[rows, clips]`` with gaps, clustered by prompt."""
        there = ~np.isnan(values)
        sums, counts = (np.add.reduceat(of, self.cells, axis=1) for of in (np.where(there, values, 0.0), there * 1.0))
        return clustered.means(sums, counts, self.prompt, self.stratum, micro=micro)

    def compared(self, *, micro: bool) -> tuple[np.ndarray, np.ndarray]:
        """``[models, models]`` each: row less column on the clips of both, and p of no difference; p is NaN where a
        pair has too few prompts in common, and never below what an exact test of as many prompts can show.
        """
        off, rounding = self.off(), paired.rounding_of(self.values, np.nan_to_num(self.goal))
        differences, p = np.zeros((len(off), len(off))), np.full((len(off), len(off)), np.nan)
        for one in range(len(off) - 1):
            found = self.means(off[one] - off[one + 1 :], micro=micro)
            able = ~np.isnan(found.error) & (found.prompts >= paired.LEAST_PROMPTS)
            tested = np.where(np.abs(found.mean) <= rounding, 1.0, paired.t_test(found.mean, found.error, found.dof))
            tested = np.maximum(tested, 2.0 ** (1 - found.prompts))
            if not np.isnan(self.goal).any():
                tested = np.maximum(tested, self._on_either_side(one, found, micro=micro))
            p[one, one + 1 :] = p[one + 1 :, one] = np.where(able, tested, np.nan)
            differences[one, one + 1 :], differences[one + 1 :, one] = found.mean, -found.mean
        return differences, p

    def _on_either_side(self, one: int, found: clustered.Means, *, micro: bool) -> np.ndarray:
        """``[models after one]``: p of "equally near, on either side of the reference's value" (see `paired`)."""
        apart = self.values - self._of_clips(self.goal_of_cells)
        middle = self.means((apart[one] + apart[one + 1 :]) / 2, micro=micro)
        half = self.means((apart[one] - apart[one + 1 :]) / 2, micro=micro)
        with np.errstate(invalid="ignore", divide="ignore"):  # where the mean is 0, p is 1 already
            share = middle.weights * paired.nearer(middle.by_stratum, half.by_stratum) / found.mean[:, None]
        return paired.of_all_sides(paired.t_test(middle.by_stratum, middle.errors, middle.dofs), share)[0]


def _table(scored: pd.DataFrame, values: _Values, real: _Values) -> _Table | None:
    rows: list[Any] = [*scored.itertuples()]
    every: dict[str, set[float | None]] = {}
    of_real: dict[str, list[pd.Series]] = {}
    for row in rows:
        every.setdefault(row.subset, set()).add(_target(row))
        of_real.setdefault(row.subset, []).append(real[row.model][row.subset, row.metric])
    aims = {subset: found.pop() if len(found) == 1 else None for subset, found in every.items()}
    series = {
        (row.model, row.subset): values[row.model][row.subset, row.metric]
        for row in rows
        if (row.subset, row.metric) in values[row.model]
    }
    return _Table(series, aims, of_real) if series else None


def _target(row: Any) -> float | None:
    return row.reference if row.direction == Direction.BAND and not np.isnan(row.reference) else None


def _pooled(of_metric: pd.DataFrame, values: _Values, real: _Values, metric: Metric, *, micro: bool) -> pd.DataFrame:
    """Rows of the models that have a value on every subset."""
    counts: dict[Any, int] = of_metric.groupby("model")["subset"].nunique().to_dict()
    everywhere = [model for model, count in counts.items() if count == len({*of_metric["subset"]})]
    kept = of_metric.loc[of_metric["model"].isin(everywhere)]
    table = _table(kept, values, real)
    if table is None:
        return kept.iloc[:0]
    found = table.means(table.values, micro=micro)
    half_width = clustered.quantile(found.dof) * found.error
    board = kept.drop_duplicates("model").set_index("model").loc[table.models].reset_index()
    n = np.count_nonzero(~np.isnan(table.values), axis=1)
    nothing = dict.fromkeys(("null", "null_sd", "p", "excess", "floor"), np.nan)
    nothing |= dict.fromkeys(("missing", "mark", "protocol", "hygiene", "no_null", "null_within_prompts"))
    pooled = {
        "subset": MICRO if micro else MACRO,
        "value": found.mean,
        "low": found.mean - half_width,
        "high": found.mean + half_width,
        "n": n,
        "reference": table.means(table.goals(), micro=micro).mean,
    }
    board = board.assign(**nothing, **pooled, **_UNRANKED)
    clips: Any = kept.groupby("model")[["unmeasured", "of_others", "refused", "shared"]].sum()
    board[[*clips.columns]] = clips.loc[table.models].to_numpy()
    reasons: Any = kept.dropna(subset="why_unmeasured").groupby("model")["why_unmeasured"].unique()
    board["why_unmeasured"] = [" and ".join(reasons.get(model, ())) or None for model in table.models]
    return _with_ranks(board, board, metric, table, micro=micro)


def _with_ranks(
    board: pd.DataFrame, scored: pd.DataFrame, metric: Metric, table: _Table | None, *, micro: bool = False
) -> pd.DataFrame:
    if table is None or len(scored) < 2 or metric.direction is Direction.NEITHER:
        return board
    if metric.direction is Direction.BAND and np.isnan(table.goal).any():
        return board
    places = [table.models.index(model) for model in scored["model"]]
    order_by = table.means(table.off(), micro=micro).mean[places]
    apart, p = (found[np.ix_(places, places)] for found in table.compared(micro=micro))
    return _ranked(board, scored, metric, apart, p, order_by)


def _ranked(
    board: pd.DataFrame,
    scored: pd.DataFrame,
    metric: Metric,
    differences: np.ndarray,
    p: np.ndarray,
    order_by: np.ndarray,
) -> pd.DataFrame:
    """Fill in ranks, letters, and which runs were tested against the leader.

    Which of a pair is better is decided on the clips of both. The values that decide the rank are of all clips that a
    run has, so a run with easier clips can be ranked above one that is shown to be better: then its places do not hold
    its rank.

    Args:
        board: the rows to fill in.
        scored: those with a value.
        metric: theirs.
        differences: ``[scored, scored]``: row less column on the clips of both.
        p: ``[scored, scored]``, NaN where a pair was not tested.
        order_by: ``[scored]``: the numbers to sort by.
    """
    sign = -1.0 if metric.direction is Direction.HIGHER else 1.0
    order = np.argsort(sign * order_by, kind="stable")
    ordered = (sign * order_by)[order]
    above = np.triu_indices(len(order), 1)
    apart, found = (of[np.ix_(order, order)] for of in (sign * differences, p))
    tested = ~np.isnan(found[above])
    different = np.zeros(p.shape, dtype=bool)
    shown = paired.holm(found[above][tested]) < paired.ALPHA
    different[above[0][tested], above[1][tested]] = shown
    better = (different | different.T) & (apart < 0)
    labels = scored.index[order]
    rank_low, rank_high = 1 + better.sum(axis=0), len(order) - better.sum(axis=1)
    board.loc[labels, "rank"] = 1 + np.searchsorted(ordered, ordered)  # equal numbers have one rank
    board.loc[labels, "rank_low"], board.loc[labels, "rank_high"] = rank_low, rank_high
    board.loc[labels, "letters"] = paired.letters(different | different.T)
    leader = int(np.argmax((rank_low == 1) & better.any(axis=1)))
    board.loc[labels, "tested"] = ~np.isnan(p[order[leader], order]) | (np.arange(len(order)) == leader)
    return board


def _distances_compared(
    scored: pd.DataFrame, folders: Sequence[RunFolder], allow: Sequence[str], place: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """``[scored, scored]`` each, as of `_Table.compared`; p is NaN where a pair shares too few clips."""
    by_name = {folder.name: folder for folder in folders}
    ranked = [by_name[model] for model in scored["model"]]
    pairs = list(itertools.combinations(range(len(ranked)), 2))
    where = scored["subset"].iloc[0], scored["metric"].iloc[0]
    found = differences(ranked, pairs=pairs, place=place, allow=allow, only=[where], pooled=False, metrics=[where[1]])
    apart, p = np.zeros((len(ranked), len(ranked))), np.full((len(ranked), len(ranked)), np.nan)
    rows: list[Any] = [*found.itertuples()]
    for (i, j), row in zip(pairs, rows, strict=True):
        apart[i, j], apart[j, i] = row.difference, -row.difference
        p[i, j] = p[j, i] = np.nan if isinstance(row.too_few, str) else row.p
    return apart, p
