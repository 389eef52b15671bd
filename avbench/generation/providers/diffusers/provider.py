"""Runs a diffusers pipeline as a generator.

The target is ``diffusers:FOLDER`` or ``diffusers:OWNER/NAME`` (the hub, or its cache if HF_HUB_OFFLINE is set). With
``-M base=PIPELINE`` it may also be a part of a pipeline: a transformer's folder, a safetensors or GGUF file, a LoRA.

``-M lora=`` is a LoRA, or a JSON list of several: paths, or objects with ``path``, ``component`` and ``scale``.

The value of a setting is the first that exists of these: the one given by ``-M``; that of the preset, which the
pipeline's class chooses unless ``-M preset=NAME`` or ``none`` is given; for size and length, that of the subset's clip
spec, rounded up to what the model can make; the pipeline's own default. Clips are kept as the model makes them.

An image-to-video model starts from the image in the prompt's tag ``image``: a path relative to the folder ``-M
images=`` (by default the working folder). The image's centre is cropped to the clip's shape.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avbench.core import ClipSpec, InputError, Prompt, counted
from avbench.generation.detect import Detected, detect, fingerprint, index_of, is_modular, makes, needs
from avbench.generation.modular import Modular
from avbench.generation.providers.diffusers import calling
from avbench.generation.providers.diffusers.adapters import Adapter, config_beside, read_adapters
from avbench.generation.providers.diffusers.loading import (
    Held,
    Placement,
    Source,
    check_parts,
    check_placement,
    check_seeds,
    load,
    local_folder,
    longer_captions,
    parts_of,
    pipeline_class,
    refuse_pickles,
    slot_of,
    variant_of_parts,
)
from avbench.generation.providers.diffusers.presets import part_config
from avbench.generation.providers.diffusers.ranks import Ranks, fresh
from avbench.generation.providers.diffusers.settings import CallSettings, decide
from avbench.generation.settings import captioned, check_kinds, check_template, grouped
from avbench.generation.table import Made, Request
from avbench.storage.content import content_sha256
from avbench.storage.reading import file_sha256

_FITTED = ("width", "height", "frames")
"""Settings that are rounded up to what the model can make."""
_UNMODULAR = ("device_map", "offload", "context_parallel")
_TEXTS = ("dtype", "vae_dtype", "device", "device_map", "offload", "attention", "cache")
_PARTS = ("component", "single file", "GGUF", "pickle")


@dataclass(frozen=True)
class Loaded:
    """What is loaded: the pipeline's parts, and what may be run or read of them."""

    base: str | None = None
    component: str | None = None
    lora: Any = None
    lora_scale: float | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False


def _placed(held: Held, vae_dtype: str | None, *, allow_pickle: bool) -> Placement:
    """What was left open, chosen; `vae_dtype` is the preset's. Raises InputError if settings do not go together."""
    if held.cache_threshold is not None and held.cache is None:
        msg = f"-M cache_threshold={held.cache_threshold} does nothing without -M cache="
        raise InputError(msg)
    device = held.device or _device()
    chosen = {name: value for name, value in vars(held).items() if value is not None}
    chosen |= {"device": device, "dtype": held.dtype or ("float32" if device == "cpu" else "bfloat16")}
    chosen |= {"vae_dtype": held.vae_dtype or vae_dtype, "allow_pickle": allow_pickle}
    placement = Placement(**chosen)
    check_kinds(vars(placement), positive=["cache_threshold"])
    check_placement(placement)
    return placement


class Diffusers:
    """A pipeline as a generator of clips. Nothing is loaded before `prepare`."""

    batch_size = 1
    most_workers = 1
    """Because each process would load the model again."""
    setting_groups = (Loaded, CallSettings, Held)

    def __init__(self, target: str, **settings: Any) -> None:
        """Detect what the target holds and decide every setting; each is a field of one of `setting_groups`."""
        if empty := [name for name, value in settings.items() if value is None]:
            how = "; for an empty one write -M negative_prompt=" if empty[0] == "negative_prompt" else ""
            msg = f"-M {empty[0]}= is null, which would leave the preset's value in force: leave it out{how}"
            raise InputError(msg)
        loaded, asked, held = grouped(settings, Loaded, CallSettings, Held)
        _check_settings({**vars(loaded), **vars(asked), **vars(held)})
        self._source = _source(target, loaded)
        pipeline, index = self._source.pipeline, self._source.index
        if not loaded.allow_pickle:
            refuse_pickles([one for one in (self._source.folder, self._part_path) if one is not None])
        self._needs = needs(pipeline)
        if calling.argument(pipeline, "prompt") is None:
            msg = f"{pipeline.__name__} takes no caption, so nothing here can tell it what to make"
            raise InputError(msg)
        if asked.images is not None and "image" not in self._needs:
            msg = f"-M images={asked.images} does nothing: {pipeline.__name__} takes no image"
            raise InputError(msg)
        if asked.images is not None and not Path(asked.images).is_dir():
            msg = f"-M images={asked.images}: there is no such folder"
            raise InputError(msg)
        if other := [name for name in self._needs if name != "image"]:
            msg = f"{pipeline.__name__} needs {', '.join(other)} besides a caption, which no prompt here can give"
            raise InputError(msg)
        if held.vae_dtype is not None and "vae" not in parts_of(index):
            msg = f"-M vae_dtype={held.vae_dtype} does nothing: this {pipeline.__name__} has no part named vae"
            raise InputError(msg)
        if issubclass(pipeline, Modular) and (
            unfit := [one for one in _UNMODULAR if getattr(held, one) not in (None, 1)]
        ):
            msg = f"-M {unfit[0]}={getattr(held, unfit[0])}: a modular pipeline does not take it"
            raise InputError(msg)
        added = [self._part_path, *(one.file for one in self._source.adapters)]
        self._decided = decide(asked, self._source, [one for one in added if one])
        self._placement = _placed(held, self._decided.vae_dtype, allow_pickle=loaded.allow_pickle)
        check_seeds(self._source, self._placement.device)
        heads = part_config(self._source.folder).get("num_attention_heads")
        if isinstance(heads, int) and heads % self._placement.context_parallel:
            msg = (
                f"-M context_parallel={self._placement.context_parallel}: so many devices cannot share the {heads} "
                "attention heads of the transformer evenly"
            )
            raise InputError(msg)
        self._images = Path(asked.images or ".")
        self._caption = asked.caption or ("{video} {audio}" if "audio" in makes(pipeline) else "{video}")
        self._pipe: Any = None
        self._ranks: Ranks | None = None
        self.settings: Mapping[str, Any] = {
            "class": pipeline.__name__,
            **self._decided.recorded(),
            "caption": self._caption,
            **asdict(self._placement),
            "weights": {one: fingerprint(path) for one, path in self._weights().items()},
            "component": self._source.slot or loaded.component,
            "lora_scale": _alone([one.scale for one in self._source.adapters]),
            **_components(self._source.adapters),
            **({"variant": self._source.variant} if self._source.variant else {}),
        }

    def prepare(self) -> None:
        """Load the pipeline. Raises InputError if it cannot be loaded."""
        if self._pipe is not None:
            return
        pipe = load(self._source, self._placement, self._decided.sampler)
        if self._placement.context_parallel > 1:
            self._ranks = Ranks(self._source, self._placement, self._decided.sampler, pipe)
        self._pipe = pipe

    def generate(self, requests: Sequence[Request]) -> list[Made]:
        """Sample each request separately, from noise that depends only on its seed."""
        self.prepare()
        return [self._one(request) for request in requests]

    def remarks(self, requests: Sequence[Request]) -> list[str]:
        """List choices that were made for the user, unsupported settings, and captions and clips that are cut short."""
        messages = self._decided.remarks()
        if cut := longer_captions(self._source, {self._captioned(one.prompt) for one in requests}, self._decided.call):
            messages.append(f"the end of {counted(len(cut), 'caption')} is ignored: too long for this model")
        frames, fps = self._decided.sent.get("frames"), self._decided.fps
        asked = max((one.clip_spec.seconds for one in requests if one.clip_spec is not None), default=0.0)
        if frames is not None and frames / fps < asked:
            messages.append(
                f"clips of {counted(frames, 'frame')} at {fps} fps last {float(frames / fps):.2f} s, but a subset "
                f"asks for {asked:.2f} s: they will be too short to be measured; give -M frames="
            )
        return messages

    def _one(self, request: Request) -> Made:
        import torch

        prompt, pipeline = request.prompt, type(self._pipe)
        call: dict[str, Any] = {}
        for setting, value in self._form(request.clip_spec).items():
            if name := calling.argument(pipeline, setting):
                call[name] = value
        call |= self._decided.call
        fitted = [calling.argument(pipeline, one) for one in _FITTED]
        recorded = {name: value for name, value in call.items() if name in fitted}  # the others are in the settings
        if "image" in self._needs:
            call["image"], recorded["image_sha256"] = self._image(prompt, call.get("width"), call.get("height"))
        call |= {"prompt": self._captioned(prompt), "output_type": "np"}
        seed = request.key.seed
        try:
            if self._ranks:
                self._ranks.ask(call, seed)
            with torch.inference_mode():
                output = self._pipe(**call, generator=fresh(self._pipe, seed))
        except Exception:
            if self._ranks:  # the other ranks may wait forever, so the whole pipeline is loaded again
                self._ranks.end()
                self._ranks = self._pipe = None
            raise
        image = recorded.get("image_sha256")  # hashed before it was read, and making a clip takes long
        source = None if image is None else f"image:{image}"
        clip = calling.clip_of(output, self._pipe, self._decided.fps)
        requested = {one: self._decided.sent.get(one) for one in _FITTED}
        return Made(clip, call=recorded, source=source, requested=requested)

    def _form(self, spec: ClipSpec | None) -> dict[str, Any]:
        """The settings of a request, with the size and length rounded to what the model can make."""
        wanted: dict[str, Any] = {}
        if spec is not None:
            frames = math.ceil(spec.frames / spec.fps * self._decided.fps)
            wanted = {"width": spec.width, "height": spec.height, "frames": frames}
        wanted |= {**self._decided.sent, "fps": float(self._decided.fps)}
        fitted = {one: calling.snapped(self._pipe, one, wanted[one]) for one in _FITTED if one in wanted}
        return {**wanted, **fitted}

    def asked(self, request: Request) -> tuple[object, ...]:
        """What decides a clip, besides the settings and the clip spec."""
        prompt = request.prompt
        image = repr(prompt.tags.get("image")) if "image" in self._needs else None  # a wrong tag may be a list
        return self._captioned(prompt), image, request.key.seed

    def source(self, request: Request) -> str | None:
        """The hash of the image that a clip starts from, if it starts from one."""
        return f"image:{content_sha256(self._image_path(request.prompt))}" if "image" in self._needs else None

    def _captioned(self, prompt: Prompt) -> str:
        return captioned(self._caption, prompt.video_caption, prompt.audio_caption or "", "caption")

    def _image_path(self, prompt: Prompt) -> Path:
        named = prompt.tags.get("image")
        if not isinstance(named, str):
            msg = f"prompt {prompt.id!r} has no tag 'image', and {self.settings['class']} starts from an image"
            raise InputError(msg)
        path = self._images / named
        if not path.is_file():
            msg = f"prompt {prompt.id!r}: the image {path} does not exist; -M images= gives the folder of images"
            raise InputError(msg)
        return path

    def _image(self, prompt: Prompt, width: int | None, height: int | None) -> tuple[Any, str]:
        from PIL import Image, ImageOps

        path = self._image_path(prompt)
        sha256 = file_sha256(path)
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        if width and height:
            image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
        return image, sha256

    @property
    def _part_path(self) -> Path | None:
        return self._source.part.path if self._source.part else None

    def _weights(self) -> dict[str, Path]:
        found = {"pipeline": self._source.folder, "part": self._part_path}
        for number, one in enumerate(self._source.adapters, 1):
            name = "lora" if number == 1 else f"lora_{number}"
            found |= {name: one.file, f"{name}_config": config_beside(one.file)}
        return {name: path for name, path in found.items() if path is not None}


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise InputError if a setting has a wrong type or value, before anything is loaded."""
    if empty := [name for name, value in settings.items() if value in ("", []) and name != "negative_prompt"]:
        msg = f"-M {empty[0]}= is empty: leave it out, or give a value"
        raise InputError(msg)
    given = {name: value for name, value in settings.items() if value is not None}
    check_kinds(
        given,
        flags=("compile", "vae_tiling", "trust_remote_code", "allow_pickle"),
        captions=("base", "component", "revision", "preset", "caption", "images", "negative_prompt", *_TEXTS),
        counts=(*_FITTED, "steps"),
        numbers=("guidance", "guidance_2", "lora_scale"),
        positive=("flow_shift",),
        objects=("call",),
    )
    if "caption" in given:
        check_template(given["caption"], "caption")


def _source(target: str, asked: Loaded) -> Source:
    base, revision = asked.base, asked.revision
    if revision is not None and Path(base or target).exists():
        msg = f"-M revision={revision} does nothing: {base or target} is a path here, not a repository of the hub"
        raise InputError(msg)
    path = local_folder(target, None if base else revision)
    seen = detect(path)
    part: Detected | None = None
    loras = [] if asked.lora is None else asked.lora if isinstance(asked.lora, list) else [asked.lora]
    if seen.kind in (*_PARTS, "LoRA"):
        if base is None:
            what = f"a {seen.kind}" + (f" ({seen.class_name})" if seen.class_name else "")
            msg = f"{target} is {what}, not a whole pipeline: give the pipeline it belongs to, -M base=FOLDER"
            raise InputError(msg)
        folder = local_folder(base, revision, given_as="-M base=")
        if not (folder / "model_index.json").is_file() and not is_modular(folder):
            above = folder.resolve().parent
            part_of_one = (above / "model_index.json").is_file()
            how = f"it is a part of the one in {above}" if part_of_one else "name the folder that has one"
            msg = f"-M base={base} is no pipeline: it has no model_index.json; {how}"
            raise InputError(msg)
        if seen.kind == "LoRA":
            loras = [str(path), *loras]
        else:
            part = seen
    elif seen.kind not in ("pipeline", "custom pipeline", "modular pipeline"):
        other = f"; run it as {seen.model}" if seen.model else ", which is known but cannot be run yet"
        msg = f"diffusers:{target} is no pipeline but {seen.kind} ({seen.class_name or seen.path.name}){other}"
        raise InputError(msg)
    elif base is not None:
        msg = f"-M base={base}: {target} is a whole pipeline; leave -M base= out"
        raise InputError(msg)
    else:
        folder = path
    for name, value, needed in (
        ("component", asked.component, part or loras),
        ("lora_scale", asked.lora_scale, loras),
    ):
        if value is not None and not needed:
            msg = f"-M {name}={value} does nothing: no {'part or ' if name == 'component' else ''}LoRA is given"
            raise InputError(msg)
    index = index_of(folder)
    pipeline = pipeline_class(folder, index, trusted=asked.trust_remote_code)
    slot = slot_of(index, part, asked.component) if part else None
    scale = 1.0 if asked.lora_scale is None else asked.lora_scale
    find = functools.partial(local_folder, revision=None, given_as="-M lora=")
    check_parts(folder, index, slot)
    adapters = read_adapters(loras, asked.component, scale, parts_of(index), find)
    variant = variant_of_parts(folder, index, slot, pickles=asked.allow_pickle)
    return Source(folder, index, pipeline, part, slot, adapters, asked.trust_remote_code, variant)


def _alone(values: Sequence[Any]) -> Any:
    """The only value; None if there is none, all of them if there are several."""
    return [*values] if len(values) > 1 else next(iter(values), None)


def _components(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """The components of several LoRAs; for a single one the setting `component` holds it."""
    return {"lora_components": [one.component for one in adapters]} if len(adapters) > 1 else {}


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
