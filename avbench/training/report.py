"""Reports what trained arms reach in the embedded world: one table from run folders of the toy subsets.

Everything is read off the clips and off the scores that a run already has: named colours, number of bodies, breaks, the
physics of `toy_*`, sound against visible contacts beside its null, and the distances. Run the world itself
(``toyworld:``) on the same prompts and give its folder too: its column is what a perfect arm would have.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from avbench.core import Clip, InputError, Prompt
from avbench.features.audio.onsets import Onsets
from avbench.storage.media import read_clip
from avbench.storage.run_folder import RunFolder
from avbench.toyworld import Scene
from avbench.toyworld.inverse import Body, bodies

HIT_SECONDS = 0.0625
"""An onset and a contact this near are one event: half a frame."""
FIRST_FRAMES = 6
"""Bodies are counted in these, before most of them leave the picture or cover each other."""
SEEN_SHARE = 0.25
"""A colour counts as shown where it is seen in this share of the frames."""
LEAST_KICK = 1.5
"""Pixels a frame and frame, of a 64-pixel picture: a change of velocity that large is a visible contact."""
NULL_SHIFTS = 20
_DISTANCES = ("fvd", "kvd", "motion_frechet", "fad")


@dataclass(frozen=True)
class Found:
    """What one clip shows."""

    colours: tuple[bool, ...]
    """Of each body of the scene, whether its colour is shown."""
    count_right: bool
    count_near: bool
    """Right, or wrong by one."""
    hits: float
    """Matched events, and"""
    events: int
    """contacts plus onsets: F1 is 2 · hits / events, summed over clips."""
    null_hits: float
    """The same with the sound shifted around the clip, mean over shifts."""


def look(clip: Clip, prompt: Prompt) -> Found:
    """Look at one clip of a toy prompt. Raises InputError on a prompt without a scene."""
    plain = prompt.tags.get("scene")
    if not isinstance(plain, Mapping):
        msg = f"prompt {prompt.id!r} has no scene of the toy world in its tags"
        raise InputError(msg)
    scene = Scene.from_json(plain)
    seen = [bodies(frame) for frame in clip.frames]
    shown = [{body.colour for body in frame} for frame in seen]
    colours = tuple(np.mean([body.colour in frame for frame in shown]) >= SEEN_SHARE for body in scene.bodies)
    off = float(np.median([len(frame) for frame in seen[:FIRST_FRAMES]])) - len(scene.bodies)
    hits, events, null = _heard(clip, _contacts(clip, seen, [body.colour for body in scene.bodies]))
    return Found(colours, off == 0, abs(off) <= 1, hits, events, null)


def _contacts(clip: Clip, seen: Sequence[Sequence[Body]], colours: Sequence[str]) -> np.ndarray:
    """Times at which the patches of a colour change their velocity abruptly, in seconds."""
    times: set[float] = set()
    for colour in dict.fromkeys(colours):
        track = np.array([_centre(frame, colour) for frame in seen]) * 64 / clip.width
        kick = np.linalg.norm(track[2:] - 2 * track[1:-1] + track[:-2], axis=1)  # NaN where the colour is not seen
        padded = np.pad(np.nan_to_num(kick), 1)
        peaks = (padded[1:-1] >= LEAST_KICK) & (padded[1:-1] >= padded[:-2]) & (padded[1:-1] > padded[2:])
        times |= {(index + 1) / float(clip.fps) for index in np.flatnonzero(peaks)}
    return np.array(sorted(times))


def _centre(frame: Sequence[Body], colour: str) -> tuple[float, float]:
    patches = [body for body in frame if body.colour == colour]
    area = sum(body.area for body in patches)
    if not area:
        return (np.nan, np.nan)
    x, y = (sum(body.centre[axis] * body.area for body in patches) / area for axis in (0, 1))
    return (x, y)


def _heard(clip: Clip, contacts: np.ndarray) -> tuple[float, int, float]:
    """Hits, events, and hits under shifted sound."""
    if clip.audio is None:
        return 0.0, 0, 0.0
    onsets = np.asarray(Onsets()(clip)["onset_seconds"])
    seconds = clip.audio.seconds
    shifts = np.linspace(0.2, seconds - 0.2, NULL_SHIFTS)
    null = np.mean([_hits(contacts, (onsets + shift) % seconds) for shift in shifts])
    return _hits(contacts, onsets), len(contacts) + len(onsets), float(null)


def _hits(contacts: np.ndarray, onsets: np.ndarray) -> int:
    """One-to-one matches within `HIT_SECONDS`, as many as there can be."""
    near = np.abs(onsets[None, :] - contacts[:, None]) <= HIT_SECONDS
    return int(near[linear_sum_assignment(-near.astype(float))].sum()) if near.size else 0


def table(folders: Sequence[RunFolder]) -> pd.DataFrame:
    """One row per measure, one column per run.

    Args:
        folders: runs of the toy subsets; what one was not evaluated for stays empty in its column.

    Raises:
        InputError: a prompt has no scene of the toy world.
    """
    return pd.DataFrame({folder.path.name: dict(_rows(folder)) for folder in folders})


def _rows(folder: RunFolder) -> Iterator[tuple[str, str]]:
    found: dict[str, list[Found]] = {}
    prompts = {(subset.name, prompt.id): prompt for subset in folder.subsets() for prompt in subset.prompts}
    for key, sample in folder.samples().items():
        if sample.path is not None:
            prompt = prompts[key.subset, key.prompt]
            found.setdefault(key.subset, []).append(look(read_clip(folder.path / sample.path), prompt))
    everything = [one for each in found.values() for one in each]
    yield "clips", str(len(everything))
    yield "named colours shown", _percent([shown for one in everything for shown in one.colours])
    yield "number of bodies right", _percent([one.count_right for one in everything])
    yield "number of bodies right within one", _percent([one.count_near for one in everything])
    for subset, each in found.items():
        yield f"{subset}: number of bodies right", _percent([one.count_right for one in each])
        if events := sum(one.events for one in each):
            hits, null = (2 * sum(getattr(one, name) for one in each) / events for name in ("hits", "null_hits"))
            yield f"{subset}: onset–contact F1 (shifted sound)", f"{hits:.2f} ({null:.2f})"
    if not (folder.path / "scores.json").exists():
        return
    scores, _ = folder.scores()
    for score in scores:
        if score.value is not None and (score.metric in _DISTANCES or score.metric.startswith("toy_")):
            yield f"{score.subset}: {score.metric}", f"{score.value:.4g}"


def _percent(what: Sequence[bool]) -> str:
    return f"{100 * np.mean(what):.1f} %" if what else "–"


def markdown(frame: pd.DataFrame) -> str:
    """The table for a page."""
    head = ["| |" + "".join(f" {name} |" for name in frame.columns), "|---|" + "--:|" * len(frame.columns)]
    rows = [
        f"| {name} |" + "".join(f" {'' if pd.isna(cell) else cell} |" for cell in row)
        for name, *row in frame.itertuples()
    ]
    return "\n".join([*head, *rows]) + "\n"
