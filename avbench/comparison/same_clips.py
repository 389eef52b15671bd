"""Says what about the clips of runs makes a comparison doubtful: equal files, and another size, rate or length."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from avbench.core import InputError, Key, Sample
from avbench.storage.media import read_clip
from avbench.storage.run_folder import RunFolder

_READ = 3
"""Clips whose form is looked at, per subset and pair of runs."""
_LENGTH = 1.1
"""Lengths up to this factor apart count as one: a frame more or less is usual."""


@dataclass(frozen=True)
class _Form:
    width: int
    height: int
    rate: Fraction
    seconds: float

    def __str__(self) -> str:
        return f"{self.width}×{self.height}, {float(self.rate):.4g} frames/s, {self.seconds:.3g} s"

    def fits(self, other: "_Form") -> bool:
        same = (self.width, self.height, self.rate) == (other.width, other.height, other.rate)
        return same and max(self.seconds, other.seconds) <= _LENGTH * min(self.seconds, other.seconds)


def remarks(runs: Sequence[RunFolder]) -> list[str]:
    """Sentences on clips that are one file, within a run and between the first run and another, and on unlike forms.

    Forms are compared on the first clips that both have, and only of subsets without a clip spec: others are conformed.
    """
    made = [{key: one for key, one in sorted(run.samples().items()) if one.path is not None} for run in runs]
    found = [sentence for run, clips in zip(runs, made, strict=True) for sentence in _copies(run.path.name, clips)]
    for run, clips in zip(runs[1:], made[1:], strict=True):
        shared = [key for key in made[0] if key in clips]
        names = f"{runs[0].path.name} and {run.path.name}"
        if same := [key for key in shared if made[0][key].sha256 == clips[key].sha256]:
            found.append(f"{len(same)} of the {len(shared)} clips that {names} share are the same file in both.")
        found += _moved(names, made[0], clips)
        found += _forms((runs[0], run), (made[0], clips), shared)
    return found


def _copies(name: str, clips: Mapping[Key, Sample]) -> Iterator[str]:
    of_file = defaultdict(list)
    for key, sample in clips.items():
        of_file[sample.sha256].append(key)
    if copies := [keys for keys in of_file.values() if len(keys) > 1]:
        one, other = (f"{key.prompt}-{key.seed}" for key in copies[0][:2])
        count = sum(map(len, copies))
        yield f"{count} of {len(clips)} clips of {name} are copies of one another, for example {one} and {other}."


def _moved(names: str, first: Mapping[Key, Sample], clips: Mapping[Key, Sample]) -> Iterator[str]:
    """A sentence on files that another prompt or seed has in the first run, unless it has them in both."""
    owners = {sample.sha256: key for key, sample in first.items()}
    found = [(owners[sample.sha256], key) for key, sample in clips.items() if sample.sha256 in owners]
    moved = [(owner, key) for owner, key in found if owner not in clips or clips[owner].sha256 != clips[key].sha256]
    if moved:
        one, other = (f"{key.prompt}-{key.seed}" for key in moved[0])
        yield f"{len(moved)} clips are the same file in {names}, but of another prompt: {one} is {other} in the second."


def _forms(
    runs: tuple[RunFolder, RunFolder], made: tuple[Mapping[Key, Sample], Mapping[Key, Sample]], shared: Sequence[Key]
) -> Iterator[str]:
    for subset in [one.name for one in runs[0].subsets() if one.clip_spec is None]:
        for key in [key for key in shared if key.subset == subset][:_READ]:
            try:
                one, other = (_form(run, clips[key]) for run, clips in zip(runs, made, strict=True))
            except InputError:  # it is gone; what was measured of it is kept
                continue
            if not one.fits(other):
                clip, names = f"{key.prompt}-{key.seed}", [run.path.name for run in runs]
                yield (
                    f"The clips differ in form ({clip}: {one} in {names[0]}, {other} in {names[1]}), and numbers "
                    "depend on it: a difference may come from the form alone."
                )
                break


def _form(run: RunFolder, sample: Sample) -> _Form:
    clip = read_clip(run.path / str(sample.path))
    count, height, width = clip.frames.shape[:3]
    return _Form(width, height, clip.fps, count / float(clip.fps))
