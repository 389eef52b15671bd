"""Decides the values of a call: those given by ``-M``, the preset's, and the checkpoint's own.

The checkpoint's configs and card decide what a preset may not: whether it is distilled, and whether its scheduler and
its guider take what the preset gives. What was decided, and from where, goes into the record of the run.
"""

import inspect
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from avbench.core import InputError, frame_rate, nearest, require_known
from avbench.generation.providers.diffusers import calling
from avbench.generation.providers.diffusers.loading import Sampler, Source, own_scheduler, parts_of, shift_field
from avbench.generation.providers.diffusers.presets import (
    PRESETS,
    distilled,
    few_step_presets,
    native_fps,
    of_family,
    part_config,
    preset_name,
    stated,
)
from avbench.storage.reading import read_json

_OURS = {"prompt", "generator", "output_type", "return_dict"}
"""Arguments of a pipeline that avbench always sets itself."""


@dataclass(frozen=True)
class CallSettings:
    """What the pipeline is asked for."""

    preset: str | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | str | None = None
    steps: int | None = None
    guidance: float | None = None
    guidance_2: float | None = None
    negative_prompt: str | None = None
    flow_shift: float | None = None
    caption: str | None = None
    images: str | None = None
    call: Mapping[str, Any] | None = None
    """Further arguments of the pipeline itself."""

    def of_call(self) -> dict[str, Any]:
        """The settings of calling.NAMES that were given."""
        return {name: value for name, value in vars(self).items() if name in calling.NAMES and value is not None}


@dataclass(frozen=True)
class Decided:
    """The values of a call, and where they are from."""

    preset: str | None
    """Name of the preset whose values were taken."""
    source: str | None
    """Where that preset was published, if the class and not the user chose it."""
    values: Mapping[str, Any]
    """Setting of calling.NAMES → value; those that the pipeline has no argument for are None."""
    sent: Mapping[str, Any]
    """Those of them that are arguments of the call, without the frame rate."""
    call: Mapping[str, Any]
    """Further arguments of the call."""
    fps: Fraction
    sampler: Sampler
    vae_dtype: str | None
    """The preset's data type of the VAE."""
    scheduler: Mapping[str, Any] | None
    """The checkpoint's own: its class and its flow shift, if it uses one."""
    dropped: Sequence[str]
    """What the preset gives and the checkpoint does not take."""
    evidence: str | None
    """Why the checkpoint was taken for distilled; None if it was not."""
    card: Mapping[str, Any]
    """What the code in the card of a distilled checkpoint gave."""

    def recorded(self) -> dict[str, Any]:
        """Plain values for run.json."""
        return {
            "preset": self.preset,
            **dict.fromkeys(calling.NAMES),
            **self.values,
            "fps": str(self.fps),
            "flow_shift": self.sampler.flow_shift,
            "scheduler": self.scheduler,
            "dropped": list(self.dropped),
            "call": dict(self.call),
            **({"distilled": self.evidence, "from_card": dict(self.card)} if self.evidence else {}),
        }

    def remarks(self) -> list[str]:
        """The choices that were made for the user, in sentences."""
        messages = []
        if self.source:
            own, shift = (self.scheduler or {}).get("flow_shift"), self.sampler.flow_shift
            changed = f", with flow shift {shift} instead of the checkpoint's {own}" if shift not in (None, own) else ""
            messages.append(
                f"sampled with preset {self.preset} ({self.source}), which its class chose{changed}; -M preset= "
                "overrides it"
            )
        if self.evidence:
            read = ", ".join(f"{name} {value}" for name, value in self.card.items())
            taken = f"the code in its card gave {read}" if read else "steps and guidance are those that you gave"
            messages.append(f"taken for distilled, because {self.evidence}: {taken}")
        if self.dropped:
            messages.append(
                f"left out of the preset, because this checkpoint does not take it: {', '.join(self.dropped)}"
            )
        return messages


def decide(asked: CallSettings, source: Source, added: Sequence[Path]) -> Decided:
    """Decide the values of a call.

    Args:
        asked: what the user gave.
        source: the pipeline.
        added: files and folders that are put into it: a part, LoRAs.

    Raises:
        InputError: a value is wrong or would do nothing, or a distilled checkpoint's steps or guidance are open.
    """
    pipeline, given = source.pipeline, asked.of_call()
    name, known = _preset(asked.preset, source)
    found, evidence, card = None, None, {}
    if not asked.preset and not known.get("few_steps"):
        found = distilled(source.folder, source.index, added)
    if found:
        evidence, place = found
        card = {key: value for key, value in stated(place).items() if key not in given}
        _require_own_settings({*given, *card}, pipeline, evidence, few_step_presets(name))
        name, known = None, {**of_family(known), **card}
    wanted = {**{key: known[key] for key in calling.NAMES if known.get(key) is not None}, **given}
    dropped = [key for key in wanted if key != "fps" and calling.argument(pipeline, key) is None]
    guider = _guider_scale(source)
    guided = "guidance" in dropped and guider is not None
    if guided:
        dropped.remove("guidance")
    embedded = calling.argument(pipeline, "true_cfg_scale") and "guidance" in wanted
    if embedded and part_config(source.folder).get("guidance_embeds") is False:
        dropped.append("guidance")
    if "guidance_2" in {*wanted} - {*dropped} and "transformer_2" not in parts_of(source.index):
        dropped.append("guidance_2")
    _refuse_idle(asked, dropped, source)
    scheduler, shift = own_scheduler(source), asked.flow_shift
    if shift is None and (shift := known.get("flow_shift")) is not None and not asked.preset and not _shifts(scheduler):
        shift = None  # the class chose the preset, and this checkpoint's scheduler is of another kind
        dropped.append("flow_shift")
    accepted = inspect.signature(pipeline.__call__).parameters
    call = {key: value for key, value in (known.get("call") or {}).items() if key in accepted}
    dropped += [key for key in known.get("call") or {} if key not in accepted]
    if "steps" in given and "sigmas" in call:
        msg = f"-M steps={asked.steps} does nothing: preset {name} gives the noise level of each step (sigmas)"
        raise InputError(msg)
    call |= _checked_call(asked, pipeline)
    kept = {key: value for key, value in wanted.items() if key not in dropped}
    if not guided:
        _refuse_idle_negative_prompt(asked, pipeline, kept, call)
    unsent = ("fps", "guidance") if guided else ("fps",)
    return Decided(
        preset=name,
        source=PRESETS[name].source if name and not asked.preset else None,
        values={**({} if guider is None else {"guidance": guider}), **kept},
        sent={key: value for key, value in kept.items() if key not in unsent},
        call={**calling.chosen(pipeline, parts_of(source.index)), **call},
        fps=_fps(source, wanted),
        sampler=Sampler(shift, wanted["guidance"] if guided else None),
        vae_dtype=known.get("vae_dtype"),
        scheduler=_described(scheduler),
        dropped=dropped,
        evidence=evidence,
        card=card,
    )


def _refuse_idle(asked: CallSettings, dropped: Sequence[str], source: Source) -> None:
    """Raise InputError if a value that the user gave would do nothing."""
    name = source.pipeline.__name__
    if asked.guidance is not None and "guidance" in dropped and calling.argument(source.pipeline, "guidance"):
        msg = (
            f"-M guidance={asked.guidance} does nothing: the transformer of this {name} embeds no guidance "
            "(guidance_embeds in its config); -M call= gives true_cfg_scale"
        )
        raise InputError(msg)
    if asked.guidance_2 is not None and "guidance_2" in dropped and calling.argument(source.pipeline, "guidance_2"):
        msg = f"-M guidance_2={asked.guidance_2} does nothing: this {name} has no second transformer"
        raise InputError(msg)
    if mine := [key for key in dropped if key in asked.of_call()]:
        msg = f"{name} has no argument for {', '.join(mine)}"
        raise InputError(msg)


def _refuse_idle_negative_prompt(
    asked: CallSettings, pipeline: type, kept: Mapping[str, Any], call: Mapping[str, Any]
) -> None:
    """Raise InputError if the user gave a negative prompt, and no guidance is above 1, from which on one is used."""
    if asked.negative_prompt is None:
        return
    own, of_clip = calling.argument(pipeline, "true_cfg_scale"), calling.argument(pipeline, "guidance")
    names = [own] if own else [name for name in (of_clip, calling.argument(pipeline, "audio_guidance_scale")) if name]
    values = {**({of_clip: kept["guidance"]} if "guidance" in kept else {}), **call}
    scales = {name: values.get(name, calling.default(pipeline, name)) for name in names}
    numbers = {name: scale for name, scale in scales.items() if isinstance(scale, int | float)}
    if numbers and max(numbers.values()) <= 1:
        given = " and ".join(f"{name} {scale:g}" for name, scale in numbers.items())
        msg = (
            f"-M negative_prompt= does nothing: {pipeline.__name__} uses one only with a guidance above 1, not {given}"
        )
        raise InputError(msg)


def _checked_call(asked: CallSettings, pipeline: type) -> Mapping[str, Any]:
    """The user's further arguments. Raises InputError if one is unknown, or given by another setting."""
    call = asked.call or {}
    accepted = inspect.signature(pipeline.__call__).parameters.keys() - _OURS - {"self"}
    if ours := sorted(call.keys() & _OURS):
        msg = f"-M call: {ours[0]} is set by avbench itself and cannot be given"
        raise InputError(msg)
    named = {calling.argument(pipeline, setting): setting for setting in calling.NAMES}
    if ours := [name for name in call if name in named]:  # which rounds sizes, and sets the rate of the clip as well
        msg = f"-M call: {ours[0]} is the setting {named[ours[0]]}: give -M {named[ours[0]]}="
        raise InputError(msg)
    if unknown := [key for key in call if key not in accepted]:
        msg = f"-M call: {pipeline.__name__} has no argument {unknown[0]!r}; {nearest(unknown[0], accepted)}"
        raise InputError(msg)
    return call


@dataclass(frozen=True)
class _Guider:
    guidance_scale: float | None = None


def _guider_scale(source: Source) -> float | None:
    """The guidance that a checkpoint's own guider has; None if it has no guider."""
    config = source.folder / "guider" / "guider_config.json"
    if config.is_file():
        return read_json(config, _Guider, known_only=False).guidance_scale
    return getattr(source.pipeline, "guider_scale", None)


def _preset(asked: str | None, source: Source) -> tuple[str | None, dict[str, Any]]:
    if asked is not None:
        require_known("preset", asked, (*PRESETS, "none"), "docs/models.md")
    name = asked or preset_name(source.pipeline.__name__, source.index, part_config(source.folder))
    return (None, {}) if name in (None, "none") else (name, asdict(PRESETS[name]))


def _require_own_settings(known: Set[str], pipeline: type, evidence: str, presets: Sequence[str]) -> None:
    """Raise InputError if neither the user nor the card gives the steps and the guidance of a distilled checkpoint."""
    open_ = [one for one in ("steps", "guidance") if one not in known and calling.argument(pipeline, one)]
    if open_:
        named = f", or -M preset={' or '.join(presets)} if it is that model" if presets else ""
        msg = (
            f"this {pipeline.__name__} is distilled, because {evidence}, so the preset of its class does not fit: give "
            f"{' and '.join(f'-M {one}=' for one in open_)} as its card says{named} (-M preset=none takes the "
            "pipeline's own)"
        )
        raise InputError(msg)


def _shifts(scheduler: Any) -> bool:
    """Whether a scheduler has a flow shift and uses it."""
    try:
        return scheduler is not None and bool(shift_field(scheduler))
    except InputError:
        return False


def _described(scheduler: Any) -> dict[str, Any] | None:
    """A checkpoint's own scheduler, for the record: its class and, if it uses one, its flow shift."""
    if scheduler is None:
        return None
    shift = scheduler.config[shift_field(scheduler)] if _shifts(scheduler) else None
    return {"class": type(scheduler).__name__, "flow_shift": shift}


def _fps(source: Source, wanted: Mapping[str, Any]) -> Fraction:
    """The frame rate of the clips: the given one, else the pipeline's own, else that of its training."""
    pipeline, fps = source.pipeline, wanted.get("fps")
    if fps is None:
        fps = calling.default(pipeline, "fps") or native_fps(
            pipeline.__name__, source.index, part_config(source.folder)
        )
    if fps is None:
        msg = f"{pipeline.__name__} does not give the frame rate of its clips: give -M fps="
        raise InputError(msg)
    return frame_rate(fps)
