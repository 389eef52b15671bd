"""The page: one HTML file that opens offline. Tables, the clips as film strips, and every number's origin.

Prompt texts and names come from anybody: the template escapes them all.
"""

import base64
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from avbench import __version__
from avbench.core import Clip, InputError, Key, Sample, Subset
from avbench.folder import RunFolder
from avbench.media import read_clip
from avbench.report import curves
from avbench.report.tables import LEGEND, subset_tables

STRIPS_A_SUBSET = 6
"""Prompts of each subset whose clips are shown: the first ones."""
_STRIP_FRAMES = 16
_STRIP_HEIGHT = 64
_WAVE_HEIGHT = 20


@dataclass(frozen=True)
class Strip:
    """One model's clip of a prompt, as a picture or as the sentence why there is none."""

    model: str
    picture: str | None
    missing: str | None


def render(folders: Sequence[RunFolder], frame: pd.DataFrame, over: pd.DataFrame) -> str:
    """The page's HTML for runs, their `compare.scores_frame` and their `compare.over_motion`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    protocols = {digest: protocol for folder in folders for digest, protocol in folder.scores()[1].items()}
    plain = frame.astype(object).where(frame.notna(), None)
    return environment.get_template("page.html").render(
        version=__version__,
        legend=LEGEND,
        tables=list(subset_tables(frame)),
        charts={subset.name: curves.charts(over, subset.name) for subset in folders[0].subsets()},
        legends={subset.name: curves.legend(over, subset.name) for subset in folders[0].subsets()},
        size=(curves.WIDTH, curves.HEIGHT),
        strips={subset.name: _strips(folders, subset) for subset in folders[0].subsets()},
        scores=plain.to_dict("records"),
        protocols={
            digest: json.dumps(protocol, indent=1, ensure_ascii=False) for digest, protocol in protocols.items()
        },
        runs=[json.dumps(folder.run().to_json(), indent=1, ensure_ascii=False) for folder in folders],
    )


def _strips(folders: Sequence[RunFolder], subset: Subset) -> list[tuple[str, str, list[Strip]]]:
    shown = []
    samples = [folder.samples() for folder in folders]
    for prompt in subset.prompts[:STRIPS_A_SUBSET]:
        seed = folders[0].run().seeds[0]
        key = Key(subset.name, prompt.id, seed)
        strips = [_strip(folder, made.get(key)) for folder, made in zip(folders, samples, strict=True)]
        shown.append((prompt.id, prompt.video_caption, strips))
    return shown


def _strip(folder: RunFolder, sample: Sample | None) -> Strip:
    if sample is None or sample.path is None:
        return Strip(folder.path.name, None, sample.failure if sample else "the clip was not sampled")
    try:
        picture = _picture(read_clip(folder.path / sample.path))
    except InputError as error:
        return Strip(folder.path.name, None, str(error))
    return Strip(folder.path.name, picture, None)


def _picture(clip: Clip) -> str:
    """Frames side by side with the waveform below, as a data address."""
    chosen = np.linspace(0, len(clip.frames) - 1, min(_STRIP_FRAMES, len(clip.frames))).round().astype(int)
    width = max(1, round(_STRIP_HEIGHT * clip.width / clip.height))
    frames = [cv2.resize(clip.frames[k], (width, _STRIP_HEIGHT), interpolation=cv2.INTER_AREA) for k in chosen]
    strip = np.concatenate(frames, axis=1)
    if clip.audio is not None:
        strip = np.concatenate([strip, _wave(clip.audio.mono(), strip.shape[1])])
    _, encoded = cv2.imencode(".webp", strip[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 80])
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode()


def _wave(wave: np.ndarray, width: int) -> np.ndarray:
    """The loudest sample of each column, as bars about a middle line: ``[_WAVE_HEIGHT, width, 3]`` uint8."""
    edges = np.linspace(0, len(wave), width + 1).astype(int)
    peaks = np.array([np.abs(wave[a:b]).max(initial=0) for a, b in itertools.pairwise(edges)])
    from_middle = np.abs(np.arange(_WAVE_HEIGHT) - (_WAVE_HEIGHT - 1) / 2)[:, None]
    bars = from_middle <= np.maximum(0.5, peaks * _WAVE_HEIGHT / 2)
    return np.where(bars[..., None], np.array([60, 110, 180]), np.array([245, 245, 245])).astype(np.uint8)
