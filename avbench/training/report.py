"""Reports what trained arms reach in the embedded world: one table from run folders of the toy subsets.

Everything is computed from a run's clips and scores: named colours, number of bodies, breaks, the
physics of `toy_*`, sound against visible contacts beside its null, and the distances. Run the world itself
(``toyworld:``) on the same prompts and give its folder too: its column is what a perfect arm would have.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from avbench.core import Clip, Prompt
from avbench.features.audio.onsets import Onsets
from avbench.storage.media import read_clip
from avbench.storage.runs.folder import RunFolder
from avbench.toyworld import Scene
from avbench.toyworld.inverse import bodies
from avbench.toyworld.judge import TOUCHING, judge

HIT_SECONDS = 0.0625
"""An onset and a contact this near are one event: half a frame."""
MERGE_SECONDS = 0.03
"""Contacts of several bodies that are nearer in time than this count as one, like onsets."""
FIRST_FRAMES = 6
"""Bodies are counted in these frames, before most of them leave the picture or cover each other."""
SEEN_SHARE = 0.25
"""A colour counts as shown if it is seen in this share of the frames."""
NULL_SHIFTS = 20
_DISTANCES = ("fvd", "kvd", "motion_frechet", "fad")


@dataclass(frozen=True)
class Found:
    """Findings on one clip."""

    colours: tuple[bool, ...]
    """For each body of the scene, whether its colour is shown."""
    count_right: bool
    count_near: bool
    """Right, or wrong by one."""
    hits: float
    """Onsets that match a visible contact. F1 is 2 · hits / (contacts + onsets), each summed over clips. These and the
    following are 0 where contacts are not known."""
    contacts: int
    """Visible contacts."""
    onsets: int
    """Onsets of the sound."""
    null_hits: float
    """Hits with the sound shifted around the clip, mean over shifts."""


def look(clip: Clip, prompt: Prompt) -> Found:
    """Look at one clip of a toy prompt. Raises InputError on a prompt without a scene."""
    scene = Scene.of(prompt)
    seen = [bodies(frame) for frame in clip.frames]
    shown = [{body.colour for body in frame} for frame in seen]
    colours = tuple(bool(np.mean([body.colour in frame for frame in shown]) >= SEEN_SHARE) for body in scene.bodies)
    off = float(np.median([len(frame) for frame in seen[:FIRST_FRAMES]])) - len(scene.bodies)
    hits, contacts, begun, null = _onset_hits(clip, visible_contacts(clip, prompt))
    return Found(colours, off == 0, abs(off) <= 1, hits, contacts, begun, null)


def visible_contacts(clip: Clip, prompt: Prompt) -> np.ndarray | None:
    """Return the times of visible contacts, in seconds, increasing; None if the bodies cannot be followed.

    A contact is a change of velocity that gravity does not explain, at which something touches (`judge.Kick`). Free
    fall and the turns of a pendulum are no contacts.
    """
    kicks = judge(clip.frames, float(clip.fps), Scene.of(prompt)).kicks
    if kicks is None:
        return None
    kept: list[float] = []
    for time in sorted(kick.seconds for kick in kicks if kick.gap <= TOUCHING):
        if not kept or time - kept[-1] > MERGE_SECONDS:
            kept.append(time)
    return np.array(kept)


def onsets(clip: Clip) -> np.ndarray:
    """Return the times of onsets, in seconds, increasing. Raises NotMeasurable without sound."""
    return np.asarray(Onsets()(clip)["onset_seconds"])


def _onset_hits(clip: Clip, contacts: np.ndarray | None) -> tuple[float, int, int, float]:
    """Hits, contacts, onsets, and hits under shifted sound."""
    if clip.audio is None or contacts is None:
        return 0.0, 0, 0, 0.0
    begun, seconds = onsets(clip), clip.audio.seconds
    shifts = np.linspace(0.2, seconds - 0.2, NULL_SHIFTS)
    null = np.mean([_hits(contacts, (begun + shift) % seconds) for shift in shifts])
    return _hits(contacts, begun), len(contacts), len(begun), float(null)


def _hits(contacts: np.ndarray, onsets: np.ndarray) -> int:
    """One-to-one matches within `HIT_SECONDS`, as many as there can be."""
    near = np.abs(onsets[None, :] - contacts[:, None]) <= HIT_SECONDS
    return int(near[linear_sum_assignment(-near.astype(float))].sum()) if near.size else 0


def table(folders: Sequence[RunFolder]) -> pd.DataFrame:
    """One row per measure, one column per run.

    Args:
        folders: runs under different names, of the toy subsets; a cell stays empty if its run was not evaluated for it.

    Raises:
        InputError: a prompt has no scene of the toy world.
    """
    return pd.DataFrame({folder.name: dict(_rows(folder)) for folder in folders})


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
        if contacts := sum(one.contacts for one in each):
            hits, null = sum(one.hits for one in each), sum(one.null_hits for one in each)
            both = (contacts + sum(one.onsets for one in each)) / 2
            yield f"{subset}: onset–contact F1 (shifted sound)", f"{hits / both:.2f} ({null / both:.2f})"
            shares = f"{_percent_of(hits, contacts)} ({_percent_of(null, contacts)})"
            yield f"{subset}: visible contacts with an onset (shifted sound)", shares
    if not (folder.path / "scores.json").exists():
        return
    for score in folder.scores():
        if score.value is not None and (score.metric in _DISTANCES or score.metric.startswith("toy_")):
            yield f"{score.subset}: {score.metric}", f"{score.value:.4g} (n = {score.n})"


def _percent(what: Sequence[bool]) -> str:
    return _percent_of(sum(what), len(what)) if what else "–"


def _percent_of(part: float, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def markdown(frame: pd.DataFrame) -> str:
    """Write the table as markdown."""
    head = ["| |" + "".join(f" {name} |" for name in frame.columns), "|---|" + "--:|" * len(frame.columns)]
    rows = [
        f"| {name} |" + "".join(f" {'' if pd.isna(cell) else cell} |" for cell in row)
        for name, *row in frame.itertuples()
    ]
    return "\n".join([*head, *rows]) + "\n"
