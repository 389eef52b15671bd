"""Puts the scores of several runs into one table, and checks that they may be compared.

`scores_frame` gives the long table, one row per subset, metric and model, which leaderboard.py puts in order.
`check_comparable` raises where two runs were made in different ways. Clips that were conformed to the clip spec may
stand beside clips that had that form: on those the rule does nothing. `over_motion` shows what a metric owes to how
little moves. Whether a difference is more than chance: differences.py.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from avbench.core import (
    InputError,
    Key,
    Score,
    all_of,
    different_fields,
    field_in_words,
    is_absent,
    is_sha256,
    nearest,
    without_notes,
)
from avbench.metrics.evaluate import chosen_metrics, read_values
from avbench.metrics.kept import why_unknown
from avbench.metrics.rescoring import how_to_score_anew
from avbench.metrics.table import IN_PROTOCOL, Metric, known_metrics
from avbench.storage.runs.folder import REAL, RunFolder
from avbench.storage.sharing import without_folders

SAMPLING = (
    *("steps", "num_inference_steps", "sampler", "scheduler", "solver", "shift", "video_guidance", "audio_guidance"),
    *("guidance", "guidance_scale", "guidance_scale_2", "negative_prompt", "video_negative", "audio_negative", "dtype"),
    "audio_again",
)
"""Settings that say how a model was sampled, not which it is: where two models both have one, it must be equal."""

_REMEDIES = {
    "the reference": (
        "`avbench evaluate` of both with the same --reference makes them alike; compare, report, leaderboard and check "
        "of runs compute both with the one that they are given (--reference; `shipped` is avbench's own)"
    ),
    "the prompts": (
        "the runs are of two versions of the subset; `avbench run` with the same version makes them alike, of folders "
        "of clips `avbench score` with the same prompts (--prompts)"
    ),
    "subset.prompts": (
        "they differ in their number of prompts; `avbench run` with the same limit (--limit) makes them alike, of "
        "folders of clips `avbench score` with the same prompts (--prompts)"
    ),
}
"""What differs → what to do about it."""

_SCORED_AGAIN = {
    "the network's weights": "the same file",
    **dict.fromkeys(("feature.version", "beside.version"), "the same avbench"),
}
"""What differs → what both have to be measured with again."""

_WHOLE = ("reference", "subset")
"""Their fields differ together, so `--allow` is advised for the whole."""

MADE_DIFFERENTLY = "made differently"
"""Beginning of the mark on numbers whose protocols differ in an allowed way."""

Where = tuple[str, str]
"""Subset and metric."""


@dataclass(frozen=True, eq=False)
class Made:
    """How a run's numbers were made: what must be equal for two runs to be compared."""

    name: str
    sampling: Mapping[str, Any]
    clip_specs: Mapping[str, Any]
    protocols: Mapping[Where, tuple[str, Mapping[str, Any]]]
    """Digest and description."""
    has_clips: bool = True
    """Whether its clips are there, to be measured again."""

    def beside(self, first: "Made") -> "Made":
        """What a further run must equal: all that `first` has, and what only this one has."""
        return Made(
            first.name,
            {**self.sampling, **first.sampling},
            {**self.clip_specs, **first.clip_specs},
            {**self.protocols, **first.protocols},
            first.has_clips and self.has_clips,
        )


def made(folder: RunFolder, metrics: Sequence[str] | None = None) -> Made:
    """Look at a run, and at its numbers by the metrics with these names; all for None.

    Raises:
        InputError: it was not evaluated, or not by one of the metrics.
    """
    scores, protocols = asked_scores(folder, metrics), folder.evaluation().protocols
    settings = folder.run().settings
    return Made(
        folder.name,
        {name: settings[name] for name in SAMPLING if settings.get(name) is not None},
        {subset.name: subset.clip_spec and subset.clip_spec.to_json() for subset in folder.subsets()},
        {score.where: (score.protocol, protocols[score.protocol]) for score in scores},
        folder.has_clips,
    )


def check_comparable(run: Made, other: Made, allow: Sequence[str] | None = ()) -> dict[Where, str | None]:
    """For every number that both runs have: None, or the sentence in what allowed way they were made differently.

    Args:
        run: one run.
        other: another.
        allow: fields in which they may differ, such as ``feature.iterations``; ``feature`` allows all inside it. None
            where the caller lets nobody allow any, so that the message does not advise it.

    Raises:
        InputError: they differ in a field that is not allowed; the message names the fields and their values.
    """
    common = run.sampling.keys() & other.sampling.keys()
    sampling = [{name: one.sampling[name] for name in common} for one in (run, other)]
    differing_sampling = different_fields({"sampling": sampling[0]}, {"sampling": sampling[1]})
    marks: dict[Where, str | None] = {}
    both = [where for where in run.protocols if where in other.protocols]
    for where in both:
        (digest, ours), (their_digest, theirs) = run.protocols[where], other.protocols[where]
        differing = dict(differing_sampling)
        if digest != their_digest:
            forms = "clip_form" in ours and "clip_form" in theirs
            differing |= different_fields(
                *({k: v for k, v in without_notes(one).items() if forms or k != "clip_form"} for one in (ours, theirs))
            )
        specs = [{"clip_spec": one.clip_specs.get(where[0])} for one in (run, other)]
        differing |= different_fields(*specs)
        sentence = "; ".join(_said(differing))
        permitted = allow or ()
        refused = [one for one in differing if not any(one == of or one.startswith(f"{of}.") for of in permitted)]
        if refused:
            fields = [one if (one := name.partition(".")[0]) in _WHOLE else name for name in refused]
            fields = [*dict.fromkeys(fields)]
            allowed = f"{' '.join(f'--allow {field}' for field in fields)}, in Python allow={fields},"
            anyway = "" if allow is None else f" ({allowed} compares them all the same, and marks it)"
            unlike = sorted({one[1] for one in both if run.protocols[one][0] != other.protocols[one][0]})
            why = "; ".join([sentence, *_remedies(refused, unlike, run, other)])
            msg = (
                f"{where[1]} on {where[0]} of {run.name} and of {other.name} were made under different protocols and "
                f"cannot be compared: {why}{anyway}"
            )
            raise InputError(msg)
        marks[where] = f"{MADE_DIFFERENTLY}: {sentence}" if sentence else None
    return marks


def _remedies(refused: Sequence[str], metrics: Sequence[str], *sides: Made) -> Iterator[str]:
    """What to do about the fields in which two runs differ; `metrics` are those whose numbers differ in any."""
    kinds = dict.fromkeys(map(field_in_words, refused))
    if "subset.prompts" in kinds:  # which is why their hash differs
        kinds.pop("the prompts", None)
    names = ",".join(metrics)
    again = []
    if alike := dict.fromkeys(_SCORED_AGAIN[kind] for kind in kinds if kind in _SCORED_AGAIN):
        again = [
            f"`avbench measure` and `avbench evaluate` of both with {' and '.join(alike)}, each with --metric {names}, "
            "make them alike"
        ]
        kinds.pop("the reference", None)  # it belongs to the version of its features
    elif any(name.partition(".")[0] not in (*IN_PROTOCOL, "sampling", "clip_spec") for name in refused):
        again = ["`avbench evaluate` of both with the same avbench makes them alike"]  # the metric's own settings
    yield from (_REMEDIES[kind] for kind in kinds if kind in _REMEDIES)
    without = [side for side in sides if again and not side.has_clips]
    yield from [how_to_score_anew(side.name, names, has_clips=False) for side in without[:1]] or again


def require_known_fields(runs: Sequence[RunFolder], allow: Sequence[str]) -> None:
    """Raise InputError if a field in which runs may differ is one that none of them can have."""
    fields = {"package", "clip_form", *(f"sampling.{name}" for name in SAMPLING)}
    for side in [made(folder) for folder in runs] if allow else ():
        specs = [{"clip_spec": spec} for spec in side.clip_specs.values()]
        for plain in (*specs, *(protocol for _, protocol in side.protocols.values())):
            fields.update(different_fields(without_notes(plain), {}))
    known = {name.rsplit(".", depth)[0] for name in fields for depth in range(name.count(".") + 1)}
    if unknown := [name for name in allow if name not in known]:
        msg = (
            f"allow: these runs have no field {unknown[0]!r}; {nearest(unknown[0], known)}; without it, the fields in "
            "which they differ are named"
        )
        raise InputError(msg)


def _said(differing: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """What differs, in words; of files that are known by hashes, which, and the hashes' first digits."""
    said: dict[str, str] = {}
    for name, (one, two) in differing.items():
        if is_sha256(one) and is_sha256(two):
            said.setdefault(field_in_words(name), f"{field_in_words(name)} ({one[:12]} against {two[:12]})")
        elif is_sha256(one) or is_sha256(two):
            said[field_in_words(name)] = (
                f"{field_in_words(name)} ({'the first' if is_sha256(one) else 'the second'} run's only)"
            )
        elif not any(inner.startswith(f"{name}.") for inner in differing):
            said[name] = f"{name} {one!r} against {two!r}"
    return list(said.values())


def asked_scores(folder: RunFolder, metrics: Sequence[str] | None) -> list[Score]:
    """The scores of a run by the metrics with these names, in the run's order; for None by all that are known here.

    Raises:
        InputError: a name is unknown, or the run was not scored by that metric.
    """
    scores = folder.scores()
    if metrics is None:
        return [score for score in scores if score.metric in known_metrics()] or scores
    scored = {score.metric for score in scores}
    chosen_metrics(metrics)  # raises where one is unknown
    if lacking := [name for name in metrics if name not in scored]:
        msg = (
            f"{folder.path} was not scored by {lacking[0]!r}; {nearest(lacking[0], scored)}. "
            f"`avbench measure` and `avbench evaluate` with --metric {lacking[0]} add it"
        )
        raise InputError(msg)
    return [score for score in scores if score.metric in metrics]


def scores_frame(
    folders: Sequence[RunFolder], allow: Sequence[str] = (), metrics: Sequence[str] | None = None
) -> pd.DataFrame:
    """One row per (subset, metric, model): value, interval, n, null, p, excess, floor, reference, missing and more.

    `of_others` counts the clips of the subset that other runs were asked for, and this one was not.

    Args:
        folders: evaluated runs.
        allow: fields in which they may differ all the same.
        metrics: names of the metrics to show; all for None.

    Raises:
        InputError: two runs have one name, were not evaluated, or were made differently in a field that `allow` lacks.
    """
    names = [folder.name for folder in folders]
    if twice := {name for name in names if names.count(name) > 1}:
        msg = f"several runs are called {sorted(twice)[0]!r}: `named_apart` of storage/runs/folder.py renames them"
        raise InputError(msg)
    rows: list[dict[str, Any]] = []
    earlier: Made | None = None
    asked = [{*folder.planned_keys()} for folder in folders]
    every, apart = set().union(*asked), _apart(folders)
    for folder, own in zip(folders, asked, strict=True):
        of_others = Counter(key.subset for key in every - own)
        one = made(folder, metrics)
        marks = check_comparable(one, earlier, allow) if earlier else {}
        earlier = one.beside(earlier) if earlier else one
        for score in asked_scores(folder, metrics):
            metric = scored_by(folder, score.metric)
            too_few = None if score.value is None else metric.too_few(score.n, score.reference_clips)
            of_run = {"of_others": of_others[score.subset], "mark": marks.get(score.where), "too_few": too_few}
            if score.unmeasured == apart[folder.name, score.subset]:
                of_run |= {"unmeasured": 0, "why_unmeasured": None}
            rows.append(_row(folder.name, score, metric) | of_run)
    numbers = ("value", "low", "high", "null", "null_sd", "p", "excess", "floor", "reference")
    return sharable(pd.DataFrame(rows).astype(dict.fromkeys(numbers, float)))


def _apart(folders: Sequence[RunFolder]) -> Counter[tuple[str, str]]:
    """(Run, subset) → how many clips it has no file of and another has, where no two runs have a file of one prompt, as
    where folders have no common name: they are no gap in the run. A file that cannot be read is one, too.
    """
    samples = {one.name: one.samples() for one in folders}
    absent = {name: {key for key, one in of.items() if is_absent(one.failure)} for name, of in samples.items()}
    had = {name: of.keys() - absent[name] for name, of in samples.items()}
    runs = Counter(itertools.chain(*({(key.subset, key.prompt) for key in own} for own in had.values())))
    common = {subset for (subset, _), count in runs.items() if count > 1}
    every = {key for own in had.values() for key in own if key.subset not in common}
    return Counter((name, key.subset) for name, own in absent.items() for key in own & every)


def unknown_metrics(folders: Sequence[RunFolder], metrics: Sequence[str] | None = None) -> Iterator[str]:
    """Yield a sentence on each metric, of these or of all, that runs were scored by and that is not known here."""
    scored: dict[str, dict[str, None]] = {}
    for folder in folders:
        for score in folder.scores():
            scored.setdefault(score.metric, {})[folder.name] = None
    for name, runs in scored.items():
        if name not in known_metrics() and (metrics is None or name in metrics):
            yield f"{name} of {all_of([*runs])} is left out: {why_unknown(name)}"


def sharable(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame without local paths in its sentences: tables and pages are given to other people."""
    sentences = {
        name: pd.Series([without_folders(one) for one in frame[name]], frame.index, dtype=object)
        for name in ("missing", "mark", "why_unmeasured")
        if name in frame
    }
    return frame.assign(**sentences)


def scored_by(folder: RunFolder, name: str) -> Metric:
    """The metric that a run was scored by. Raises InputError where this version has none of that name."""
    found = known_metrics().get(name)
    if found is None:
        why = why_unknown(name)
        msg = f"{folder.path} was scored by {name}, which is unknown: {why}; `avbench evaluate` scores it by others"
        raise InputError(msg)
    return found


@dataclass(frozen=True, eq=False)
class Joined:
    """Values of two runs on the clips that both have."""

    prompts: list[str]
    a: np.ndarray
    b: np.ndarray
    dropped: int
    """Clips that only one has."""


def clip_values(folder: RunFolder) -> dict[Where, pd.Series]:
    """(subset, metric) → value by (prompt, seed), of the clips that could be measured, for metrics known here."""
    table = read_values(folder).dropna(subset="value")
    groups: Any = table[table["metric"].isin([*known_metrics()])].groupby(["subset", "metric"], sort=False)
    return {where: group.set_index(["prompt", "seed"])["value"] for where, group in groups}


def real_values(folder: RunFolder) -> Mapping[Where, pd.Series]:
    """(subset, metric) → the mean value of the reference's clips of each of the run's prompts that has some."""
    groups: Any = read_values(folder).dropna(subset=REAL).groupby(["subset", "metric"], sort=False)
    found = {where: group.drop_duplicates("prompt").set_index("prompt")[REAL] for where, group in groups}
    return defaultdict(lambda: pd.Series(dtype=float), found)


def targets(target: float, prompts: Sequence[str], *real: pd.Series) -> np.ndarray:
    """``[clips]``: the value that each clip should have.

    If there are real clips of each of these prompts, it is the mean value of those of its prompt: what makes a prompt
    hard shows in them, too. If not, or if runs know other real clips of a prompt, it is that of all real clips.

    Args:
        target: the value of all real clips.
        prompts: the prompt of each clip.
        real: `real_values` of each run.
    """
    of_prompt: Any = pd.concat(real).groupby(level=0).agg(["min", "max"])
    found = of_prompt["min"].reindex(prompts).to_numpy()
    differ = bool((of_prompt["min"] != of_prompt["max"]).any())
    return np.full(len(prompts), target) if differ or np.isnan(found).any() else found


def join(a: pd.Series, b: pd.Series) -> Joined:
    """Two runs' values of one metric on one subset, joined on (prompt, seed)."""
    both = a.index.intersection(b.index).sort_values()
    prompts = list(both.get_level_values("prompt"))
    return Joined(prompts, a.loc[both].to_numpy(), b.loc[both].to_numpy(), len(a.index.union(b.index)) - len(both))


def together(parts: Mapping[Where, Joined]) -> tuple[Joined, list[str]]:
    """The clips of several subsets as one, and the subset of each."""
    every = parts.values()
    joined = Joined(
        [prompt for part in every for prompt in part.prompts],
        np.concatenate([part.a for part in every]),
        np.concatenate([part.b for part in every]),
        sum(part.dropped for part in every),
    )
    return joined, [subset for (subset, _), part in parts.items() for _ in part.prompts]


MOTION_BINS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, np.inf)
"""Diagonals per second."""
LEAST_IN_BIN = 3


def over_motion(folders: Sequence[RunFolder]) -> pd.DataFrame:
    """Means of the metrics that go with how much moves, in bins of `motion_amount`, of at least LEAST_IN_BIN clips.

    One row per (subset, metric, model, bin): `low` and `high` in diagonals per second, `n`, `mean`.
    """
    shown = [metric.name for metric in known_metrics().values() if metric.goes_with_motion]
    rows = []
    for folder in folders:
        values = read_values(folder)
        amounts: Any = values[values["metric"] == "motion_amount"].set_index([*Key._fields])["value"]
        groups: Any = values[values["metric"].isin(shown)].groupby(["subset", "metric"], sort=False)
        for (subset, name), of_metric in groups:
            known = (
                of_metric.set_index([*Key._fields])["value"].to_frame("value").join(amounts.rename("amount")).dropna()
            )
            bins = np.digitize(known["amount"], MOTION_BINS) - 1
            for index, in_bin in known["value"].groupby(bins):
                if len(in_bin) >= LEAST_IN_BIN:
                    edges = {"low": MOTION_BINS[index], "high": MOTION_BINS[index + 1]}
                    made = {"subset": subset, "metric": name, "model": folder.name, "bin": index}
                    rows.append({**made, **edges, "n": len(in_bin), "mean": in_bin.to_numpy().mean()})
    return pd.DataFrame(rows, columns=["subset", "metric", "model", "bin", "low", "high", "n", "mean"])


def _row(model: str, score: Score, metric: Metric) -> dict[str, Any]:
    low, high = score.interval or (None, None)
    null = score.null
    return {
        "subset": score.subset,
        "metric": score.metric,
        "model": model,
        "value": score.value,
        "low": low,
        "high": high,
        "n": score.n,
        "unmeasured": score.unmeasured,
        "why_unmeasured": score.why_unmeasured,
        "refused": score.refused,
        "shared": score.shared,
        "hygiene": score.hygiene,
        "null": null and null.mean,
        "null_sd": null and null.sd,
        "null_within_prompts": null and null.within_prompts,
        "p": null and null.p,
        "no_null": score.no_null,
        "excess": score.excess,
        "floor": score.floor,
        "reference": score.reference,
        "missing": score.missing,
        "direction": metric.direction.value,
        "unit": metric.unit,
        "protocol": score.protocol,
    }
