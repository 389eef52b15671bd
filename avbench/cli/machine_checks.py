"""Checks that avbench works on this machine.

What is installed, which devices there are, and that a clip can be made, written and measured.
"""

import functools
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from avbench.core import Clip, InputError, Key, counted, kind_and_first_line, one_line
from avbench.core.version import __version__
from avbench.features import devices
from avbench.features.judge import served
from avbench.features.table import feature_class
from avbench.generation import table as generators
from avbench.generation.contract import Check
from avbench.generation.table import Request
from avbench.metrics.table import known_metrics
from avbench.storage import weights
from avbench.storage.media import read_clip, write_clip
from avbench.storage.workers.worker_pool import default_workers
from avbench.subsets.loading import load

_PACKAGES = ("torch", "torchvision", "numpy", "av", "opencv-python", "httpx", "diffusers", "transformers", "ray")
_LEAST_DISK_BYTES = 2 * 10**9
_CHEAP = ("flow-dis", "onsets", "levels")


def checks(out: Path) -> Iterator[Check]:
    """Run every check; `out` is the folder where runs would be written."""
    machine = (("versions", _versions), ("devices", _devices), ("disk", lambda: _disk(out)), ("bf16", _bf16))
    for name, look in (*machine, ("judge server", _judge_server)):
        yield _check(name, look)
    yield from _weights()
    clip = _check("toy clip", lambda: f"the embedded world makes {len(_toy_clip().frames)} frames with sound")
    yield clip
    for name, look in (("lossless files", _lossless), ("ordinary files", _lossy), ("measuring", _measured)):
        yield _check(name, look) if clip.ok else Check(name, None, "there is no clip to try it on")


class _NotApplicable(Exception):
    """Why a check does not apply to this machine, in a sentence."""


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except _NotApplicable as reason:
        return Check(name, None, str(reason))
    except InputError as error:
        return Check(name, False, one_line(error))
    except Exception as error:
        return Check(name, False, kind_and_first_line(error))


def _versions() -> str:
    found = [f"avbench {__version__}", f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)


def _devices() -> str:
    import torch

    cores = default_workers()
    if not torch.cuda.is_available():
        apple = torch.backends.mps.is_available()
        gpu = "Apple's GPU for models (-M device=mps), not for metrics" if apple else "no GPU that torch can use"
        return f"{counted(cores, 'core')}, {gpu}"
    cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    gpus = [f"{card.name} with {card.total_memory / 1e9:.0f} GB" for card in cards]
    gpus += filter(None, map(devices.unusable, range(len(cards))))
    return f"{counted(cores, 'core')}, {', '.join(gpus)}"


def _bf16() -> str:
    if slow := devices.slow_in_bfloat16():
        raise _NotApplicable(slow)
    return "one convolution was faster in bfloat16 than in float32"


def _judge_server() -> str:
    if not os.environ.get(served.ADDRESS, "").strip():
        msg = f"${served.ADDRESS} is not set; only physics_judge_served needs it"
        raise _NotApplicable(msg)
    served.ServedJudge()
    address, model = served.target()
    return f"{address} answers; the model is {model}"


def _disk(out: Path) -> str:
    place = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        msg = f"{place} cannot be written to"
        raise InputError(msg)
    if free < _LEAST_DISK_BYTES:
        msg = f"{free / 1e9:.1f} GB are free in {place}; {_LEAST_DISK_BYTES / 1e9:.0f} GB are wanted"
        raise InputError(msg)
    return f"{free / 1e9:.0f} GB are free in {place}"


def _weights() -> Iterator[Check]:
    """Weights that the default metrics need must exist; others may be missing, but not damaged."""
    features = {metric.feature for metric in known_metrics().values() if metric.usual}
    usual = {feature_class(feature).protocol.describe().get("weights") for feature in features}
    for name in weights.WEIGHTS:
        state = weights.verify(name)
        if state == "ok":
            yield Check(f"weights {name}", True, "there, with the right sha256")
        elif name in usual or state != "missing":
            needed = "the default metrics need them: " if name in usual else ""
            yield Check(f"weights {name}", False, f"{state}; {needed}run `avbench weights fetch {name}`")
        else:
            yield Check(f"weights {name}", None, f"missing; if you want them, run `avbench weights fetch {name}`")


@functools.cache
def _toy_clip() -> Clip:
    subset = load("toy-object-contact")
    request = Request(Key(subset.name, subset.prompts[0].id, 0), subset.prompts[0], subset.clip_spec)
    (made,) = generators.made_by(generators.build("toyworld:", {}), [request])
    if isinstance(made, Exception):
        raise made
    assert isinstance(made.clip, Clip)
    return made.clip


def _lossless() -> str:
    clip, back = _there_and_back("clip.mkv", lossless=True)
    assert clip.audio is not None
    exact = np.array_equal(clip.frames, back.frames) and back.fps == clip.fps
    if not exact or back.audio is None or np.abs(back.audio.waveform - clip.audio.waveform).max() > 2**-23:
        msg = "a clip written to FFV1 and FLAC comes back changed"
        raise InputError(msg)
    return "a clip written to FFV1 and FLAC comes back as it was"


def _lossy() -> str:
    clip, back = _there_and_back("clip.mp4", lossless=False)
    error = (
        float(np.abs(clip.frames.astype(float) - back.frames).mean()) if back.frames.shape == clip.frames.shape else 255
    )
    if error > 10 or back.audio is None:
        msg = f"a clip written to H.264 and AAC comes back with a mean error of {error:.1f} of 255, or without sound"
        raise InputError(msg)
    return f"a clip written to H.264 and AAC comes back with sound and a mean error of {error:.1f} of 255"


def _there_and_back(name: str, *, lossless: bool) -> tuple[Clip, Clip]:
    clip = _toy_clip()
    with tempfile.TemporaryDirectory() as folder:
        write_clip(clip, Path(folder) / name, lossless=lossless)
        return clip, read_clip(Path(folder) / name)


def _measured() -> str:
    clip = _toy_clip()
    counts = [f"{len(feature_class(name)()(clip))} by {name}" for name in _CHEAP]
    return f"values: {', '.join(counts)}"
