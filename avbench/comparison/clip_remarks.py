"""Says which clips limit a comparison of runs.

They have no partner or no value, are equal files, or have another size, rate or length than others or the reference's.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from avbench.core import InputError, Key, Sample, Subset, all_of, clip_name, counted, listed
from avbench.features.current import current_rows
from avbench.metrics import reference
from avbench.metrics.evaluate import read_values, reference_to_use
from avbench.metrics.table import LEAST_CLIPS, known_metrics
from avbench.storage.media.form import FIRST, first_forms, form_of
from avbench.storage.runs.folder import VALUES_FILE, RunFolder

_Named = Callable[[Key], str]
"""What a clip is called."""


def remarks(runs: Sequence[RunFolder], given: Path | None = None) -> list[str]:
    """Sentences on unlike forms, on equal files, and on clips without a partner in the first run or without a value.

    Forms are compared on the first clips that both have, and only of subsets without a clip spec: others are conformed.

    Args:
        runs: the runs.
        given: the reference of their comparison; that which they were scored with for None.
    """
    made = [{key: one for key, one in sorted(run.samples().items()) if one.path is not None} for run in runs]
    named = _namer({key for clips in made for key in clips})
    found = []
    for run, clips in zip(runs[1:], made[1:], strict=True):
        shared = [key for key in made[0] if key in clips]
        names = f"{runs[0].name} and {run.name}"
        found += _forms((runs[0], run), (made[0], clips), shared, named)
        if same := [key for key in shared if made[0][key].sha256 == clips[key].sha256]:
            found.append(f"{len(same)} of the {len(shared)} clips that {names} share are the same file in both.")
        found += _moved(names, made[0], clips, named)
        found += _alone((runs[0].name, run.name), (made[0], clips), named)
    held = [*_held(runs, made, given)]
    found += [*dict.fromkeys(_of_reference(held)), *_beside_reference(held)]
    for run, clips in zip(runs, made, strict=True):
        found += _copies(run.name, clips, named)
    for run, clips in zip(runs, made, strict=True):
        found += _without_value(run, clips, named)
    return found


def _namer(keys: Collection[Key]) -> _Named:
    """Return what names a clip: also by its subset where several subsets have its prompt."""
    seeds = {key.seed for key in keys}
    subsets: defaultdict[str, set[str]] = defaultdict(set)
    for key in keys:
        subsets[key.prompt].add(key.subset)

    def named(key: Key) -> str:
        name = clip_name(key, seeds)
        return f"{name} of {key.subset}" if len(subsets[key.prompt]) > 1 else name

    return named


def _without_value(run: RunFolder, clips: Mapping[Key, Sample], named: _Named) -> Iterator[str]:
    """A sentence for each reason why clips have no value of metrics that other clips of their subset have one of."""
    if not (run.path / VALUES_FILE).is_file():  # it was not evaluated
        return
    known = known_metrics()
    reasons = functools.cache(functools.partial(_reasons, run))
    lacking: dict[tuple[str, tuple[Key, ...]], list[str]] = {}
    groups: Any = read_values(run).groupby(["subset", "metric"], sort=False)
    for (subset, name), values in groups:
        has = {Key(*one) for one in values[[*Key._fields]].itertuples(index=False, name=None)}
        without = [key for key in clips if key.subset == subset and key not in has]
        if not without or values["value"].isna().all() or name not in known:
            continue
        why = reasons(known[name].beside) | reasons(known[name].feature)
        for reason in dict.fromkeys(why.get(key, "not measured") for key in without):
            keys = tuple(key for key in without if why.get(key, "not measured") == reason)
            lacking.setdefault((reason, keys), []).append(name.replace("_", " "))
    for (why, keys), names in lacking.items():
        total = sum(key.subset == keys[0].subset for key in clips)
        has = "has" if len(keys) == 1 else "have"
        part = f"{len(keys)} of {total} clips of {run.name}"
        yield f"{part} {has} no value of {all_of(names)}: {why} ({listed(map(named, keys))})."


def _reasons(run: RunFolder, feature: str) -> dict[Key, str]:
    """Key of a clip → why a feature has no value of it."""
    with suppress(InputError):  # there is none, or it needs the clips of another run
        rows = current_rows(run, feature, names=()).values()
        return {row.key: row.missing for row in rows if row.missing}
    return {}


def _alone(
    names: tuple[str, str], made: tuple[Mapping[Key, Sample], Mapping[Key, Sample]], named: _Named
) -> Iterator[str]:
    """Sentences on clips that only one of two runs has, on the subsets that both have."""
    both = set.intersection(*({key.subset for key in one} for one in made))
    if both and not made[0].keys() & made[1].keys():
        yield (
            f"{names[0]} and {names[1]} have no clip of the same prompt and seed, so their clips have no partners: "
            "more clips are needed to show a difference than with partners."
        )
        return
    for here, there in ((0, 1), (1, 0)):
        if keys := [key for key in made[here] if key.subset in both and key not in made[there]]:
            yield (
                f"{len(keys)} of {sum(key.subset in both for key in made[here])} clips of {names[here]} without a "
                f"partner in {names[there]} count in no comparison: {listed(map(named, keys))}."
            )


def _copies(name: str, clips: Mapping[Key, Sample], named: _Named) -> Iterator[str]:
    """A sentence on equal files. Clips of one prompt in two subsets are no copies: it was asked for twice."""
    of_file: defaultdict[str | None, dict[Any, Key]] = defaultdict(dict)
    for key, sample in clips.items():
        of_file[sample.sha256].setdefault((key.prompt, key.seed), key)
    if copies := [[*keys.values()] for keys in of_file.values() if len(keys) > 1]:
        one, other = map(named, copies[0][:2])
        count, total = sum(map(len, copies)), sum(map(len, of_file.values()))
        yield (f"{count} of {total} clips of {name} are copies of one another, for example {one} and {other}.")


def _moved(names: str, first: Mapping[Key, Sample], clips: Mapping[Key, Sample], named: _Named) -> Iterator[str]:
    """A sentence on files that another subset, prompt or seed has in the first run, unless it has them in both."""
    owners = {sample.sha256: key for key, sample in first.items()}
    in_both = {key for key in first.keys() & clips.keys() if first[key].sha256 == clips[key].sha256}
    found = [(owners[sample.sha256], key) for key, sample in clips.items() if sample.sha256 in owners]
    if moved := [(owner, key) for owner, key in found if not in_both & {owner, key}]:
        one, other = map(named, moved[0])
        are = f"{counted(len(moved), 'clip')} {'is' if len(moved) == 1 else 'are'}"
        yield f"{are} the same file in {names}, but of another subset, prompt or seed: {one} is {other} in the second."


def _forms(
    runs: tuple[RunFolder, RunFolder],
    made: tuple[Mapping[Key, Sample], Mapping[Key, Sample]],
    shared: Sequence[Key],
    named: _Named,
) -> Iterator[str]:
    names = [run.name for run in runs]
    for subset in [one.name for one in runs[0].subsets() if one.clip_spec is None]:
        found: dict[str, str] = {}
        for key in [key for key in shared if key.subset == subset][:FIRST]:
            try:
                one, other = (form_of(run.path / str(clips[key].path)) for run, clips in zip(runs, made, strict=True))
            except InputError:  # it is gone; what was measured of it is kept
                continue
            if not one.fits(other):
                found.setdefault("clips differ in form", f"{named(key)}: {one} in {names[0]}, {other} in {names[1]}")
            if not one.sounds_fit(other):
                these = f"{named(key)}: {one.heard} in {names[0]}, {other.heard} in {names[1]}"
                found.setdefault("clips differ in their sound's form", these)
        for what, which in found.items():
            yield f"The {what} ({which}), and numbers depend on it: a difference may come from the form alone."


_Held = tuple[RunFolder, Subset, Mapping[Key, Sample], reference.Reference]
"""A run, one of its subsets, its clips of it, and the reference that they are held against, without its features."""


def _held(runs: Sequence[RunFolder], made: Sequence[Mapping[Key, Sample]], given: Path | None) -> Iterator[_Held]:
    """Yield what has a reference, but no subsets with a clip spec, to which the clips of both were conformed."""
    known: dict[tuple[str, Path | None], reference.Reference | None] = {}
    for run, clips in zip(runs, made, strict=True):
        for subset in [one for one in run.subsets() if one.clip_spec is None]:
            with suppress(InputError):  # it is gone, or is another version of the subset: the scores say so
                place = reference_to_use([run], given)
                if (subset.name, place) not in known:
                    real = reference.find(subset, place)
                    known[subset.name, place] = real and replace(real, values={}, known_moments={})
                if real := known[subset.name, place]:
                    yield run, subset, {key: one for key, one in clips.items() if key.subset == subset.name}, real


def _of_reference(held: Sequence[_Held]) -> Iterator[str]:
    """Sentences on references of few clips, and on copies among their clips."""
    for real in {id(one): one for _, _, _, one in held}.values():
        clips, kept = len(real.clips), real.kept_clips
        if 0 < kept < LEAST_CLIPS:
            has = f"has {counted(clips, 'clip')}" if kept == clips else f"keeps rows of {kept} of its {clips} clips"
            yield (
                f"The reference {has} only: of more real clips the values that ≈ is read against may be others, and so "
                "may the answer."
            )
        if real.copies:
            yield f"{real.copies}, and each counts."


def _beside_reference(held: Sequence[_Held]) -> Iterator[str]:
    """Sentences on runs whose clips have another form than a reference's, or only a part of its prompts.

    That the form of a reference's clips is not known is said, unless it was imported and lists no clips.
    """
    unlike: dict[str, list[str]] = {}
    unknown: dict[str, None] = {}
    part: dict[tuple[int, int, bool], list[str]] = {}
    for run, subset, clips, real in held:
        ours, theirs = first_forms(run.path / str(one.path) for one in clips.values()), real.first_clips
        known, own = {*real.clips["prompt"]}, {key.prompt for key in clips}
        if not theirs and known:
            unknown[run.name] = None
        if theirs and (odd := [form for form in ours if not any(form.fits(one) for one in theirs)]):
            which = f"another form than the reference's ({odd[0]} against {theirs[0]})"
            unlike.setdefault(which, []).append(run.name)
        heard = [form for form in theirs if form.sound]
        if heard and (odd := [form for form in ours if not any(form.sounds_fit(one) for one in heard)]):
            which = f"sound of another form than the reference's ({odd[0].heard} against {heard[0].heard})"
            unlike.setdefault(which, []).append(run.name)
        if subset.whole_digest != real.subset_digest and len(own & known) > len(own) / 2 and known - own:
            part.setdefault((len(known), len(own & known), own <= known), []).append(run.name)
    for which, names in unlike.items():
        yield (
            f"Clips of {all_of(names)} have {which}, and numbers depend on it: what is read against the reference may "
            "differ by the form alone."
        )
    if unknown:
        yield (
            "The reference's card does not say which form its clips have, so they may have another than those of "
            f"{all_of([*unknown])}. An earlier version built it, or its clips were conformed to a clip spec."
        )
    for (whole, shared, each), names in part.items():
        have = "has" if len(names) == 1 else "have"
        apart = ", but differences in ≈ metrics rest on those of the same prompts alone" if each else ""
        yield (
            f"The reference has clips of {counted(whole, 'prompt')}, of which {all_of(names)} {have} {shared}: its "
            f"values are those of all its clips{apart}."
        )
