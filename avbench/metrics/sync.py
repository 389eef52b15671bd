"""Do picture and sound go together?

Ours compares abrupt changes of motion (features/flow/tracks.py) with onsets (features/sound.py), both in seconds, so
that a score does not depend on the frame rate. Each onset is matched with one event at most, by the assignment that
matches most and, among those, misses least; a match is within `TOLERANCE_SECONDS`. Only onsets that come while an event
could be found count. What chance gives is known: the same onsets, slid around the clip by every offset that is not
small, are matched as well. The lag is where strong events and loud onsets fall together best; of lags that are nearly
as good the smaller is taken. AV-Align in its three versions and DeSync are as published: features/av_align.py and
features/synchformer.py.

A clip without onsets, or without an event, has nothing to match: it is not measurable, where the published code gives
it 0 or divides by 0.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from avbench.core import Columns

TOLERANCE_SECONDS = 0.1
LAG_SECONDS = 0.5
"""The largest lag that is looked for, either way."""
LAG_STEP_SECONDS = 0.005
LAG_COST = 0.3
"""Share of its agreement that a lag of one second loses."""
NULL_SHIFTS = 99
"""Offsets, evenly spread around the clip."""
NULL_LEAST_SECONDS = 0.2
"""Offsets nearer to 0 than this are too near to be chance."""


def av_align(columns: Columns) -> np.ndarray:
    """TempoTokens' score since February 2025, [clips] in 0...1."""
    return _measurable(columns, "av_align", "clear_peaks")


def av_align_2024(columns: Columns) -> np.ndarray:
    """TempoTokens' score before February 2025, [clips]: it can exceed 1."""
    return _measurable(columns, "av_align_2024", "peaks")


def av_align_javisbench(columns: Columns) -> np.ndarray:
    """JavisBench's score, [clips]: it can exceed 1."""
    return _measurable(columns, "av_align_javisbench", "peaks")


def desync(columns: Columns) -> np.ndarray:
    """av-benchmark's DeSync: mean of the sizes of the first and the last 4.8 s' lags, [clips] in s."""
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
    """``[events, onsets]``: how much a match of them says about the lag."""
    first: float
    """From when an event could be found,"""
    last: float
    """and until when."""
    seconds: float
    """Length of the sound."""

    def slid(self, offset: float) -> "_Times":
        """With the sound later by `offset`, what goes out at one end coming in at the other."""
        return self._replace(onsets=(self.onsets + offset) % self.seconds)

    def heard(self) -> np.ndarray:
        """The onsets that an event could match."""
        inside = (self.onsets >= self.first - TOLERANCE_SECONDS) & (self.onsets <= self.last + TOLERANCE_SECONDS)
        return self.onsets[inside]


def sync_agreement(columns: Columns) -> np.ndarray:
    """Matches over the mean count of events and onsets, [clips] in 0...1. What chance gives is not taken off."""
    return _each(columns, _agreement)


def sync_excess(columns: Columns) -> np.ndarray:
    """`sync_agreement` less its mean over slid sound, [clips]: 0 is chance."""
    return _each(columns, lambda clip: _agreement(clip) - float(np.mean(_by_chance(clip))))


def sync_p(columns: Columns) -> np.ndarray:
    """Share of offsets under which slid sound agrees as well, [clips]; the sound as it is counts as one of them."""
    return _each(columns, lambda clip: (1 + np.sum(_by_chance(clip) >= _agreement(clip))) / (1 + len(_by_chance(clip))))


def sync_lag(columns: Columns) -> np.ndarray:
    """How late the sound is where it agrees best with the picture, [clips] in ms; negative: early."""
    return _each(columns, _lag, LAG_SECONDS)


def sync_offset(columns: Columns) -> np.ndarray:
    """`sync_lag` without its sign, [clips]."""
    return np.abs(sync_lag(columns))


def _each(columns: Columns, number: Callable[[_Times], float], margin: float = 0.0) -> np.ndarray:
    """A number of every clip that has an event, and an onset that could match one (`margin` seconds further off)."""
    return np.array([number(clip) if _has_both(clip, margin) else np.nan for clip in _clips(columns)], dtype=np.float64)


def _clips(columns: Columns) -> Iterator[_Times]:
    times = ("event_seconds", "onset_seconds", "event_from", "event_until", "sound_seconds")
    sizes = ("event_strength", "onset_level")
    for events, onsets, *span, strengths, levels in zip(*(columns[name] for name in times + sizes), strict=True):
        yield _Times(events, onsets, np.outer(strengths, np.sqrt(levels)), *map(float, span))


def _has_both(clip: _Times, margin: float) -> bool:
    near = (clip.onsets >= clip.first - margin) & (clip.onsets <= clip.last + margin)
    return bool(len(clip.events) and near.any())


def _agreement(clip: _Times) -> float:
    onsets = clip.heard()
    misses = np.abs(_matched(clip.events, onsets))
    return 2 * int(np.sum(misses <= TOLERANCE_SECONDS)) / (len(clip.events) + len(onsets))


def _by_chance(clip: _Times) -> np.ndarray:
    """Agreement under offsets of at least NULL_LEAST_SECONDS, around the clip: ``[offsets]``."""
    least = min(NULL_LEAST_SECONDS, clip.seconds / 4)
    return np.array([_agreement(clip.slid(by)) for by in np.linspace(least, clip.seconds - least, NULL_SHIFTS)])


def _lag(clip: _Times) -> float:
    steps = round(LAG_SECONDS / LAG_STEP_SECONDS)
    lags = sorted(np.arange(-steps, steps + 1) * LAG_STEP_SECONDS, key=abs)
    return 1000 * float(max(lags, key=lambda lag: _nearness(clip, lag) * (1 - LAG_COST * abs(lag))))


def _nearness(clip: _Times, lag: float) -> float:
    """Weight of the pairs that fall together were the sound earlier by `lag`; nothing from the tolerance on."""
    apart = np.abs(clip.onsets[None, :] - lag - clip.events[:, None])
    worth = clip.weights * np.maximum(0, 1 - apart / TOLERANCE_SECONDS)
    return float(worth[linear_sum_assignment(-worth)].sum())


def _matched(events: np.ndarray, onsets: np.ndarray) -> np.ndarray:
    """How much later each matched onset is than its event, seconds: as many as the fewer of both."""
    apart = onsets[None, :] - events[:, None]
    cost = np.abs(apart)
    rows, at = linear_sum_assignment(np.where(cost <= TOLERANCE_SECONDS, cost, 1e3 + np.minimum(cost, 1e2)))
    return apart[rows, at]
