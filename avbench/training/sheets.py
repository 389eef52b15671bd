"""Draws clips of several runs below one another, and their sounds side by side, for inspection.

Pictures are ``[height, width, 3]`` uint8 RGB.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from scipy import signal

from avbench.core import Clip, InputError, Prompt
from avbench.storage.media import read_clip
from avbench.storage.runs.folder import RunFolder
from avbench.training.report import onsets, visible_contacts

PROMPTS = 12
SEED = 0
"""Seed that chooses the prompts."""
_LINE = 15
"""Height of a line of text, in pixels."""
_TEXT, _ONSET, _CONTACT = (40, 40, 40), (40, 220, 60), (255, 70, 70)
_SOUND_SIZE = (400, 72)
"""Width and height of one spectrogram."""
_QUIETEST, _LOUDEST = -90.0, -20.0
"""Levels in decibels that are drawn black and white."""


def sheets(folders: Sequence[RunFolder], count: int = PROMPTS) -> dict[str, np.ndarray]:
    """Draw `count` random prompts that all runs have.

    Returns:
        ``clips``: per prompt one strip of frames for each run. ``sound``, where a run has any: per prompt one
        spectrogram (0 Hz below, half the sample rate above) for each run with sound, with onsets marked in green along
        the top and, where the bodies can be followed, visible contacts in red along the bottom.

    Raises:
        InputError: the runs have no clip of the same prompt and seed, or a prompt has no toy scene.
    """
    samples = [{key: one for key, one in folder.samples().items() if one.path is not None} for folder in folders]
    shared = sorted(set.intersection(*(set(each) for each in samples)), key=str)
    if not shared:
        msg = f"{', '.join(str(folder.path) for folder in folders)} have no clip of the same prompt and seed"
        raise InputError(msg)
    prompts = {(subset.name, prompt.id): prompt for subset in folders[0].subsets() for prompt in subset.prompts}
    drawn = np.random.default_rng(SEED).choice(len(shared), min(count, len(shared)), replace=False)
    clip_rows, sound_rows = [], []
    for key in (shared[index] for index in sorted(drawn)):
        prompt = prompts[key.subset, key.prompt]
        title = f"{key.subset} {key.prompt}: {prompt.video_caption}"
        strips, sounds = [], []
        for folder, each in zip(folders, samples, strict=True):
            clip = read_clip(folder.path / str(each[key].path))
            strip = np.hstack([np.pad(frame, ((0, 0), (0, 1), (0, 0)), constant_values=255) for frame in clip.frames])
            strips += [_line(folder.name, strip.shape[1]), strip]
            if clip.audio is not None:
                sounds.append(np.vstack([_line(folder.name, _SOUND_SIZE[0]), _spectrogram(clip, prompt)]))
        clip_rows += [_line(title, strips[-1].shape[1]), *strips]
        if sounds:
            row = np.hstack(sounds)
            sound_rows += [_line(title, row.shape[1]), row]
    return {name: _stacked(rows) for name, rows in (("clips", clip_rows), ("sound", sound_rows)) if rows}


def _spectrogram(clip: Clip, prompt: Prompt) -> np.ndarray:
    """Level over time and frequency, with onsets and contacts as short lines at the edges."""
    assert clip.audio is not None
    rate = clip.audio.sample_rate
    window, hop = round(0.02 * rate), round(0.005 * rate)
    wave = clip.audio.waveform.mean(axis=0)
    _, _, power = signal.spectrogram(wave, rate, nperseg=window, noverlap=window - hop, scaling="spectrum")
    level = 10 * np.log10(np.maximum(power, 1e-12))[::-1]
    grey = np.clip(255 * (level - _QUIETEST) / (_LOUDEST - _QUIETEST), 0, 255).astype(np.uint8)
    picture = np.repeat(cv2.resize(grey, _SOUND_SIZE, interpolation=cv2.INTER_AREA)[..., None], 3, axis=2)
    columns, mark = _SOUND_SIZE[0] / clip.audio.seconds, _SOUND_SIZE[1] // 5
    touched = visible_contacts(clip, prompt)
    for times, colour, rows in (
        (onsets(clip), _ONSET, slice(None, mark)),
        (() if touched is None else touched, _CONTACT, slice(-mark, None)),
    ):
        for time in times:
            at = min(int(time * columns), _SOUND_SIZE[0] - 2)
            picture[rows, at : at + 2] = colour
    return picture


def _line(text: str, width: int) -> np.ndarray:
    """A line of text on white; OpenCV draws ASCII alone."""
    line = np.full((_LINE, width, 3), 255, np.uint8)
    plain = text.encode("ascii", "replace").decode()
    return cv2.putText(line, plain, (2, _LINE - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.36, _TEXT, 1, cv2.LINE_AA)


def _stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack rows below one another, with white beside narrower ones."""
    width = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows])


def png(picture: np.ndarray) -> bytes:
    """Encode a picture as a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
