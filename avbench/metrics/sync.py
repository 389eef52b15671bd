"""Measures whether picture and sound belong together in time.

avbench's own metrics compare abrupt changes of motion (events; features/flow/tracks.py) with onsets
(features/audio/onsets.py), both in seconds, so that the tolerance is the same at every frame rate. Each onset is
matched with at most one event, so that there are as many matches as possible; a match lies within `TOLERANCE_SECONDS`.
Onsets near the clip's ends, where no event can be found, do not count. The agreement by chance is measured: the same
onsets are shifted cyclically within the sound, or within the picture if the sound is longer, by many offsets that are
not small, and matched again; offsets that leave no onset where events can be found do not count. The lag is the offset
at which strong events and loud onsets coincide best; of nearly equal offsets the smaller one is taken. The three
versions of AV-Align, DeSync and SyncNet's numbers follow their published code: av_align.py, synchformer.py and
syncnet.py of features/sync.

A clip without onsets or without events has nothing to match and is not measurable; the published code returns 0 or
divides by 0.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from avbench.core import Columns, NotMeasurable
from avbench.features.sync.matching import matched_once, over_union
from avbench.metrics.sync_settings import (
    LAG_COST,
    LAG_SECONDS,
    LAG_STEP_SECONDS,
    NULL_LEAST_SECONDS,
    NULL_SHIFTS,
    OTHERS,
    TOLERANCE_SECONDS,
)

_FRAMES_BEFORE = 2
"""Events are found from the third frame to the third last one, so `event_from` is the time of so many frames."""


def av_align(columns: Columns) -> np.ndarray:
    """TempoTokens' score since February 2025, [clips] in 0...1."""
    return _measurable(columns, "av_align", "clear_peaks")


def av_align_2024(columns: Columns) -> np.ndarray:
    """TempoTokens' score before February 2025, [clips]: it can exceed 1."""
    return _measurable(columns, "av_align_2024", "peaks")


def av_align_javisbench(columns: Columns) -> np.ndarray:
    """JavisBench's score, [clips]: it can exceed 1."""
    return _measurable(columns, "av_align_javisbench", "peaks")


def av_align_excess(columns: Columns) -> np.ndarray:
    """`av_align` less its chance level: the picture's mean score with the sounds of `OTHERS` other clips, [clips].

    These are evenly spaced among the clips in the order of their keys. Raises NotMeasurable if there is no other clip.
    """
    scores = av_align(columns)
    able = np.flatnonzero(np.isfinite(scores))
    if len(able) == 1:
        msg = "one clip has onsets and peaks of motion; chance is measured with the sounds of other clips"
        raise NotMeasurable(msg)
    count = min(OTHERS, len(able) - 1)
    apart = np.linspace(1, len(able) - 1, count).round().astype(int) if count > 0 else np.zeros(0, int)
    for place, clip in enumerate(able):
        peaks, window = columns["peak_seconds"][clip], float(columns["frame_seconds"][clip])
        sounds = [columns["onset_seconds"][other] for other in able[(place + apart) % len(able)]]
        chance = [over_union(matched_once(one, peaks, window), len(one) + len(peaks)) for one in sounds]
        scores[clip] -= np.mean(chance)
    return scores


def desync(columns: Columns) -> np.ndarray:
    """av-benchmark's DeSync, [clips] in s: mean absolute lag of the first and the last 4.8 s."""
    return (np.abs(columns["first_lag"]) + np.abs(columns["last_lag"])) / 2


def desync_lag(columns: Columns) -> np.ndarray:
    """Mean of both lags, [clips] in s; positive where the sound is late, the opposite of Synchformer's own sign."""
    return (columns["first_lag"] + columns["last_lag"]) / 2


def _measurable(columns: Columns, score: str, peaks: str) -> np.ndarray:
    return np.where((columns["onsets"] > 0) & (columns[peaks] > 0), columns[score], np.nan)


class _Times(NamedTuple):
    """One clip's events and onsets, in seconds."""

    events: np.ndarray
    onsets: np.ndarray
    weights: np.ndarray
    """``[events, onsets]``: the weight of each match in the search for the lag."""
    first: float
    """The time from which events can be found."""
    last: float
    """The time until which events can be found."""
    seconds: float
    """Length of the sound."""


def sync_agreement(columns: Columns) -> np.ndarray:
    """Matches over the mean number of events and onsets, [clips] in 0...1, without subtracting chance."""
    return _each(columns, _agreement)


def sync_excess(columns: Columns) -> np.ndarray:
    """`sync_agreement` minus its mean over shifted sound, [clips]: 0 is chance."""
    return _beside_chance(columns, lambda found, chance: found - float(np.mean(chance)))


def sync_p(columns: Columns) -> np.ndarray:
    """Share of offsets at which shifted sound agrees at least as well, [clips]; the unshifted sound is one of them."""
    return _beside_chance(columns, lambda found, chance: float((1 + np.sum(chance >= found)) / (1 + len(chance))))


def sync_lag(columns: Columns) -> np.ndarray:
    """How late the sound is at its best agreement with the picture, [clips] in ms; negative if it is early."""
    return _each(columns, _lag, LAG_SECONDS)


def sync_offset(columns: Columns) -> np.ndarray:
    """`sync_lag` without its sign, [clips]."""
    return np.abs(sync_lag(columns))


def _each(columns: Columns, number: Callable[[_Times], float], margin: float = 0.0) -> np.ndarray:
    """Return a number for every clip that has an event and an onset within reach of one; `margin` seconds widen the
    reach.
    """
    return np.array([number(clip) if _has_both(clip, margin) else np.nan for clip in _clips(columns)], dtype=np.float64)


def _beside_chance(columns: Columns, number: Callable[[float, np.ndarray], float]) -> np.ndarray:
    """Return a number of each clip's agreement and of those of its shifted sound, where at least one can be judged."""

    def one(clip: _Times) -> float:
        chance = _by_chance(clip)
        return number(_agreement(clip), chance) if len(chance) else np.nan

    return _each(columns, one)


def _clips(columns: Columns) -> Iterator[_Times]:
    times = ("event_seconds", "onset_seconds", "event_from", "event_until", "sound_seconds")
    sizes = ("event_strength", "onset_level")
    for events, onsets, *span, strengths, levels in zip(*(columns[name] for name in times + sizes), strict=True):
        yield _Times(events, onsets, np.outer(strengths, np.sqrt(levels)), *map(float, span))


def _has_both(clip: _Times, margin: float) -> bool:
    return bool(len(clip.events) and _near(clip, clip.onsets, margin).any())


def _near(clip: _Times, onsets: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Which onsets lie within `margin` seconds of the time in which events can be found."""
    return (onsets >= clip.first - margin) & (onsets <= clip.last + margin)


def _agreement(clip: _Times) -> float:
    return float(_agreements(clip, clip.onsets[None])[0])


def _by_chance(clip: _Times) -> np.ndarray:
    """Agreement at offsets of at least NULL_LEAST_SECONDS around the clip: ``[offsets]``.

    An offset at which the clip could not be judged, because no onset lies where events can be found, is left out, as
    such clips are. Otherwise clips with few onsets would seem better than chance. Sound after the end of the picture
    does not count either: silence there would leave shifted onsets without events.
    """
    picture = clip.last + clip.first * (1 + 1 / _FRAMES_BEFORE)
    seconds = picture if clip.seconds > picture + TOLERANCE_SECONDS else clip.seconds
    least = min(NULL_LEAST_SECONDS, seconds / 4)
    offsets = np.linspace(least, seconds - least, NULL_SHIFTS)
    shifted = (clip.onsets[clip.onsets < seconds] + offsets[:, None]) % seconds
    return _agreements(clip, shifted[_near(clip, shifted).any(axis=1)])


def _agreements(clip: _Times, onsets: np.ndarray) -> np.ndarray:
    """Agreement of the clip's events with each row of onsets ``[rows, onsets]``: ``[rows]``."""
    inside = _near(clip, onsets, TOLERANCE_SECONDS)
    matchable = np.sort(np.where(inside, onsets, np.inf), axis=1)
    events = np.sort(clip.events).tolist()
    matches = np.array([_matches(events, row) for row in matchable.tolist()])
    return 2 * matches / (len(events) + inside.sum(axis=1))


def _lag(clip: _Times) -> float:
    """In ms; NaN if no onset comes near to an event at any lag."""
    steps = round(LAG_SECONDS / LAG_STEP_SECONDS)
    lags = sorted(np.arange(-steps, steps + 1) * LAG_STEP_SECONDS, key=abs)
    near = [_nearness(clip, lag) * (1 - LAG_COST * abs(lag)) for lag in lags]
    return 1000 * float(lags[np.argmax(near)]) if max(near) else np.nan


def _nearness(clip: _Times, lag: float) -> float:
    """Weight of the pairs that coincide if the sound is moved earlier by `lag`; zero from the tolerance on."""
    apart = np.abs(clip.onsets[None, :] - lag - clip.events[:, None])
    worth = clip.weights * np.maximum(0, 1 - apart / TOLERANCE_SECONDS)
    return float(worth[linear_sum_assignment(-worth)].sum())


def _matches(events: Sequence[float], onsets: Sequence[float]) -> int:
    """The most matches between events and onsets, both in rising order.

    Each onset takes the earliest event within reach that is free: no other choice leaves more to later onsets.
    """
    count = place = 0
    for onset in onsets:
        while place < len(events) and onset - events[place] > TOLERANCE_SECONDS:
            place += 1
        if place < len(events) and events[place] - onset <= TOLERANCE_SECONDS:
            count += 1
            place += 1
    return count
