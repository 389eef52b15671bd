"""Runs AVFullDiT as a generator: a bundled or trained checkpoint, or two pretrained towers.

``avfulldit:toy-t2av`` and the other bundled names; ``avfulldit:FOLDER``, a checkpoint as `avbench train` writes it;
``avfulldit:WAN+TANGOFLUX``, the folders of two pretrained towers; ``avfulldit:WAN+TANGOFLUX+FILE``, the same towers
with the file of their joint training. Settings choose how it is sampled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch

from avbench.avfulldit import BUNDLED
from avbench.avfulldit.checkpoint import CONFIG, WEIGHTS, Parts, load
from avbench.avfulldit.flow import Sampling
from avbench.avfulldit.pair import PairSettings, load_pair
from avbench.avfulldit.pipeline import Wish, make
from avbench.core import InputError, counted, first_line, frame_rate, nearest, require_known
from avbench.generation.detect import fingerprint
from avbench.generation.settings import check_kinds
from avbench.generation.table import Made, Request
from avbench.storage.reading import exists

_PAIR_SETTINGS = [field.name for field in fields(PairSettings)]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SOLVERS = get_args(get_type_hints(Sampling)["solver"])


@dataclass(frozen=True)
class SamplingSettings:
    """How clips are sampled, and where; None leaves a setting to the checkpoint, or to the paper for two towers."""

    steps: int | None = None
    solver: str | None = None
    shift: float | None = None
    video_guidance: float | None = None
    audio_guidance: float | None = None
    video_negative: str | None = None
    audio_negative: str | None = None
    audio_again: float | None = None
    device: str | None = None


class AVFullDiT:
    """A checkpoint, or two pretrained towers, as a generator of clips.

    Its settings are the fields of `SamplingSettings` and, for two towers, those of `PairSettings`; `dtype` is a name.
    """

    batch_size = 4
    setting_groups = (SamplingSettings, PairSettings)

    def __init__(self, target: str, **settings: Any) -> None:
        """Load the model; `settings` are fields of `setting_groups`, and None counts as not given."""
        asked, of_pair, joined = _checked(target, settings)
        self._target = target
        device = asked.pop("device", None)
        if joined:
            places = dict(zip(("video", "audio", "trained"), _places(target), strict=False))
            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
            of_pair["dtype"] = _DTYPES[of_pair.get("dtype") or ("float32" if device == "cpu" else "bfloat16")]
            self._parts = load_pair(**places, settings=PairSettings(**of_pair))
            if "trained" not in places and self._parts.dit.link == 0:  # TangoFlux as it is, and not at Wan's positions
                assert self._parts.dit.joint is not None
                self._parts.dit.joint = replace(self._parts.dit.joint, positions="vanilla", joint_layout="own")
            self.batch_size = 1  # a batch is always filled, and these models are large
            self.most_workers = 1
        else:
            device = device or "cpu"
            folder = _folder(target)
            self._parts = load(folder)
            places = {"config": folder / CONFIG, "model": folder / WEIGHTS}
        if self._parts.dit.video is None:
            msg = f"avfulldit:{target} is an audio tower: it makes no video"
            raise InputError(msg)
        self._parts.sampling = replace(self._parts.sampling, **asked)
        sampled = asdict(self._parts.sampling)
        towers = {"video": self._parts.dit.video, "audio": self._parts.dit.audio}
        scales = {f"{one}_guidance": sampled[f"{one}_guidance"] for one, tower in towers.items() if tower is not None}
        negative = next((name for name in ("video_negative", "audio_negative") if asked.get(name)), None)
        if negative and set(scales.values()) == {1}:
            msg = f"{negative} does nothing where every guidance ({', '.join(scales)}) is 1"
            raise InputError(msg)
        self._parts.dit.eval()
        _move(self._parts, device)
        if not self._parts.sampling.audio_again:  # runs that began before this setting existed can be continued
            del sampled["audio_again"]
        self.settings: Mapping[str, Any] = {
            "arm": self._parts.arm,
            "weights": {name: fingerprint(path) for name, path in places.items()},
            "device": device,
            **(_of_pair(self._parts) if joined else {}),
            **sampled,
        }

    @staticmethod
    def check(target: str, **settings: Any) -> None:
        """Check the settings, and that the target's folders exist; nothing is loaded."""
        _checked(target, settings)

    def generate(self, requests: Sequence[Request]) -> list[Made]:
        """Sample the requests in one batch."""
        wishes = [self.asked(one) for one in requests]
        return [Made(clip) for clip in make(self._parts, wishes, self.batch_size)]

    def asked(self, request: Request) -> Wish:
        """What decides a clip, besides the settings."""
        prompt = request.prompt
        return Wish(prompt.id, request.key.seed, prompt.video_caption, prompt.audio_caption or "")

    def remarks(self, requests: Sequence[Request]) -> list[str]:
        """Report caption words that the encoders do not know, captions that are cut, prompts that lack one, and a
        folder that has the name of a bundled checkpoint.
        """
        messages = []
        if self._target in BUNDLED and exists(Path(self._target) / CONFIG):
            name = self._target
            messages.append(f"avfulldit:{name} is the bundled checkpoint; the folder {name} is avfulldit:./{name}")
        for what, encoder in (("video", self._parts.video_text), ("audio", self._parts.audio_text)):
            if encoder is None:
                continue
            captions = [one.prompt.video_caption if what == "video" else one.prompt.audio_caption for one in requests]
            unknown = sorted({word for caption in captions if caption for word in encoder.unknown(caption)})
            if unknown:
                shown = ", ".join(unknown[:8]) + (" …" if len(unknown) > 8 else "")
                messages.append(
                    f"{counted(len(unknown), 'word')} of the {what} captions unknown to this model: {shown}"
                )
            if cut := sum(encoder.cuts(caption) for caption in captions if caption):
                messages.append(f"the end of {counted(cut, f'{what} caption')} is ignored: too long for this model")
            if without := sum(not caption for caption in captions):
                messages.append(f"{counted(without, 'prompt')} without {what} caption: sampled as if it were empty")
        return messages


def _checked(target: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """The settings that were given, for sampling and for two towers, and whether the target is two towers.

    Raises InputError on an invalid setting, or a folder that does not exist, before anything is loaded.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    _check(given)
    of_pair = {name: given.pop(name) for name in _PAIR_SETTINGS if name in given}
    joined = "+" in target and not exists(Path(target))
    if not joined and of_pair:
        msg = f"{', '.join(of_pair)}: for two pretrained towers only (avfulldit:WAN+TANGOFLUX), not for a checkpoint"
        raise InputError(msg)
    if missing := [place for place in _places(target) if not place.exists()] if joined else []:
        msg = f"avfulldit:{target}: {missing[0]} does not exist"
        raise InputError(msg)
    if not joined:
        _folder(target)
    asked = {name: value for name, value in vars(SamplingSettings(**given)).items() if value is not None}
    return asked, of_pair, joined


def _check(given: Mapping[str, Any]) -> None:
    check_kinds(
        given,
        counts=("steps", "joint_layers", "frames", "width", "height"),
        names=("device", "solver", "dtype"),
        captions=("video_negative", "audio_negative"),
        positive=("shift",),
        numbers=("video_guidance", "audio_guidance"),
        weights=("audio_again",),
        shares=("link",),
    )
    if "fps" in given:
        frame_rate(given["fps"])
    for name, known in (("solver", _SOLVERS), ("dtype", _DTYPES)):
        if name in given:
            require_known(name, given[name], known)


def _places(target: str) -> list[Path]:
    places = target.split("+")
    if len(places) > 3 or not all(places):
        msg = f"avfulldit:{target}: write avfulldit:WAN+TANGOFLUX, or avfulldit:WAN+TANGOFLUX+JOINT.safetensors"
        raise InputError(msg)
    return [Path(place) for place in places]


def _move(parts: Parts, device: str) -> None:
    try:
        parts.to(device)
    except (RuntimeError, AssertionError) as error:  # torch raises these for an unknown or missing device
        msg = f"device {device}: {first_line(error)}"
        raise InputError(msg) from error


def _folder(target: str) -> Path:
    folder = BUNDLED.get(target) or Path(target)
    if not folder.is_dir():
        arms = [str(place) for end in ("t2v", "t2av") if (place := Path(f"{target}-{end}")).is_dir()]
        choices = f"did you mean {' or '.join(arms)}?" if arms else nearest(target, BUNDLED)
        msg = f"avfulldit:{target} is neither a folder nor bundled; {choices}"
        raise InputError(msg)
    return folder


def _of_pair(parts: Parts) -> dict[str, Any]:
    assert parts.dit.joint is not None
    return {
        "clip": parts.clip_spec.to_json(),
        "joint": asdict(parts.dit.joint),
        "link": parts.dit.link,
        "audio_padding": "attended",  # runs that were made before this was recorded are others
        "dtype": str(next(parts.dit.widenings.parameters(), next(parts.dit.parameters())).dtype).removeprefix("torch."),
    }
