"""Runs a model of FastVideo as a generator: ``fastvideo:FOLDER`` or ``fastvideo:OWNER/NAME``.

FastVideo is a package of its own, for NVIDIA GPUs, with models that diffusers lacks, such as LongCat, MagiHuman and
MiniMax-H3. Its registry gives the sampling settings of each model; a setting of ``-M`` overrides one of them. Clips
come as 8-bit frames, with a waveform if the model makes sound, and are kept as the model makes them.

Written from FastVideo's source of August 2026 (`VideoGenerator`, `SamplingParam`); it was not run here.
"""

import copy
import importlib.metadata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from avbench.core import Audio, Clip, InputError, UnusableError, first_line, frame_rate, if_missing, nearest
from avbench.generation.detect import fingerprint
from avbench.generation.model_output import array_of, audio_of, pixels_of
from avbench.generation.settings import captioned, check_kinds, check_template
from avbench.generation.table import Made, Request
from avbench.storage.reading import exists

_NAMES = {
    "width": "width",
    "height": "height",
    "frames": "num_frames",
    "fps": "fps",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "negative_prompt": "negative_prompt",
}
"""Setting → the field of FastVideo's SamplingParam."""
_OURS = ("prompt", "seed", "save_video", "return_frames", "num_videos_per_prompt", "output_path")
"""Fields that avbench always sets itself."""
_MOST_CHANNELS = 8


class FastVideo:
    """A model of FastVideo. Nothing is loaded before `prepare`."""

    batch_size = 1
    most_workers = 1
    """Because FastVideo starts one process for each GPU itself."""

    def __init__(
        self,
        target: str,
        *,
        caption: str = "{video} {audio}",
        load: Mapping[str, Any] | None = None,
        call: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """Read the model's sampling settings from FastVideo's registry and check those that are given.

        Args:
            target: a folder, or a name of the hub.
            caption: a template of the captions ``{video}`` and ``{audio}``.
            load: arguments of ``VideoGenerator.from_pretrained``, such as ``num_gpus``.
            call: further fields of FastVideo's SamplingParam.
            **settings: width, height, frames, fps, steps, guidance, negative_prompt.
        """
        package = _package()
        if unknown := [name for name in settings if name not in _NAMES]:
            msg = (
                f"fastvideo has no setting {unknown[0]!r}; {nearest(unknown[0], [*_NAMES, 'caption', 'load', 'call'])}"
            )
            raise InputError(msg)
        objects = {name: one for name, one in (("load", load), ("call", call)) if one is not None}
        counts = ("width", "height", "frames", "steps")
        kinds = {"counts": counts, "numbers": ["guidance"], "captions": ["negative_prompt"], "objects": objects}
        check_kinds({**settings, **objects}, **kinds)
        if ours := [(name, field) for name, field in _NAMES.items() if field in (call or {})]:
            msg = f"-M call: {ours[0][1]} is the setting {ours[0][0]}: give -M {ours[0][0]}="
            raise InputError(msg)
        check_template(caption, "caption")
        self._target, self._load, self._caption = target, dict(load or {}), caption
        self._param = package.SamplingParam.from_pretrained(target)
        self._known = self._param != package.SamplingParam()
        named = [field.name for field in fields(self._param)]
        if wrong := [name for name in call or {} if name in _OURS or name not in named]:
            choices = nearest(wrong[0], [name for name in named if name not in _OURS])
            msg = f"-M call: {wrong[0]!r} is no field of FastVideo's SamplingParam that can be given; {choices}"
            raise InputError(msg)
        asked = {_NAMES[name]: value for name, value in settings.items()}
        self._param.update({**asked, **(call or {}), "save_video": False, "return_frames": True})
        self._fps = frame_rate(self._param.fps)
        self._generator: Any = None
        plain = {name: value for name in named if _plain(value := getattr(self._param, name)) and name not in _OURS}
        self.settings: Mapping[str, Any] = {
            "sampling": plain,
            "load": self._load,
            "caption": caption,
            "fastvideo": importlib.metadata.version("fastvideo"),
            "weights": fingerprint(Path(target)) if exists(Path(target)) else {"hub": target},
        }

    def prepare(self) -> None:
        """Load the model. Raises InputError with FastVideo's reason if it cannot be loaded."""
        if self._generator is None:
            try:
                self._generator = _package().VideoGenerator.from_pretrained(self._target, **self._load)
            except Exception as error:  # FastVideo, torch and its workers each raise their own errors
                msg = f"fastvideo:{self._target} cannot be loaded: {first_line(error)}"
                raise InputError(msg) from error

    def generate(self, requests: Sequence[Request]) -> list[Made]:
        """Sample each request, from noise that depends only on its seed."""
        self.prepare()
        return [self._one(request) for request in requests]

    def remarks(self, requests: Sequence[Request]) -> list[str]:
        """Say if FastVideo's registry has no settings for this model."""
        general = (
            f"FastVideo has no sampling settings for {self._target}, so its general ones are used; give the model's "
            "own by -M"
        )
        return [] if self._known else [general]

    def _one(self, request: Request) -> Made:
        prompt = request.prompt
        text = captioned(self._caption, prompt.video_caption, prompt.audio_caption or "", "caption")
        with warnings.catch_warnings():  # a newer method exists, but older versions have only this one
            warnings.simplefilter("ignore", DeprecationWarning)
            output = self._generator.generate_video(
                text, sampling_param=copy.copy(self._param), seed=request.key.seed, save_video=False, return_frames=True
            )
        found = output if isinstance(output, Mapping) else {"frames": output}
        if found.get("frames") is None or not len(found["frames"]):
            msg = f"fastvideo:{self._target} returned no frames"
            raise UnusableError(msg)
        pixels = pixels_of(array_of(found["frames"]))
        audio, remarks = _audio(found.get("audio"), found.get("audio_sample_rate"))
        requested = {one: getattr(self._param, _NAMES[one]) for one in ("width", "height", "frames")}
        return Made(Clip(pixels, self._fps, audio, remarks), requested=requested)


def _audio(sound: Any, rate: Any) -> tuple[Audio | None, tuple[str, ...]]:
    """The sound of ``[samples]``, ``[samples, channels]`` or ``[channels, samples]``, as FastVideo returns it, and
    remarks: that it was clipped, or left out because its rate is unknown.
    """
    if sound is None:
        return None, ()
    if rate is None:
        return None, ("the model's sound was left out, because FastVideo gave no sampling rate with it",)
    wave = array_of(sound)
    wave = np.atleast_2d(wave.squeeze(0) if wave.ndim == 3 else wave)
    if wave.ndim != 2:
        msg = f"FastVideo's sound has the shape {wave.shape}; it must be samples, or samples and channels"
        raise UnusableError(msg)
    return audio_of(wave.T if wave.shape[0] > _MOST_CHANNELS else wave, int(rate))


def _package() -> Any:
    with if_missing("fastvideo: models need the package fastvideo, which needs an NVIDIA GPU: pip install fastvideo"):
        import fastvideo
    return fastvideo


def _plain(value: Any) -> bool:
    """Whether a value can stand in run.json."""
    if isinstance(value, list | tuple):
        return all(_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str)
