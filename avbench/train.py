"""The verb `train`: data and towers put together, for AVFullDiT.

Four things are made, each from what stands before it: codecs, examples (clips as latents), towers, arms. Both arms
start from the same two towers and run under one plan; `arms` checks that they were shown the same.
"""

import functools
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avbench import __version__, engine, subsets
from avbench.avfulldit import checkpoint
from avbench.avfulldit.checkpoint import Parts
from avbench.avfulldit.codec import VideoCodec, VideoCodecConfig
from avbench.avfulldit.examples import Batch, Examples
from avbench.avfulldit.model import AVFullDiT, JointConfig
from avbench.avfulldit.pipeline import Wish, make
from avbench.avfulldit.spectrogram import SpectrogramCodec, SpectrogramCodecConfig
from avbench.avfulldit.text import vocabulary
from avbench.avfulldit.training import AUDIO_ONLY, CodecObjective, Objective, Plan, Progress, train
from avbench.core import InputError, digest
from avbench.folder import file_sha256, write_json
from avbench.media import MEDIA_SUFFIXES, read_clip, write_clip
from avbench.reading import parsed, read_json, read_text
from avbench.toyworld import CLIP_SPEC, FAMILIES, Scene, audio_caption, make_clip, random_scene, video_caption

FIRST_SEED = 2_000_000
"""Seeds of training clips lie far from those of runs (0 …) and references (1 000 000 …)."""

Source = tuple[np.ndarray, np.ndarray | None, str, str]
"""One clip to train on: frames, mono waveform, its two captions."""


def toy_scene(number: int, seed: int) -> tuple[Scene, int]:
    """The scene and the wording of training clip `number`; no scene of a toy subset is among them."""
    rng = np.random.default_rng([seed, number])
    family = list(FAMILIES)[number % len(FAMILIES)]
    while (scene := random_scene(family, rng)).to_json() in _held_out():
        pass
    return scene, int(rng.integers(3))


@functools.cache
def _held_out() -> list[dict[str, Any]]:
    prompts = [prompt for name in subsets.TOY_SUBSETS for prompt in subsets.load(name).prompts]
    return [Scene.from_json(prompt.tags["scene"]).to_json() for prompt in prompts]


def _toy_source(seed: int) -> Callable[[int], Source]:
    def make(number: int) -> Source:
        scene, wording = toy_scene(number, seed)
        clip, _ = make_clip(scene, FIRST_SEED + number)
        assert clip.audio is not None
        return clip.frames, clip.audio.waveform[0], video_caption(scene, wording), audio_caption(scene, wording)

    return make


def _folder_source(folder: Path) -> Callable[[int], Source]:
    lines = _captioned(folder)

    def make(number: int) -> Source:
        if number >= len(lines):
            msg = f"{folder} holds {len(lines)} clips; ask for no more with --clips"
            raise InputError(msg)
        line = lines[number]
        clip = read_clip(folder / line["file"])
        if objection := CLIP_SPEC.objection(clip):
            msg = f"{folder / line['file']}: {objection}"
            raise InputError(msg)
        wave = None if clip.audio is None else clip.audio.waveform.mean(axis=0)
        return clip.frames, wave, line["video_caption"], line.get("audio_caption") or ""

    return make


def _captioned(folder: Path) -> list[dict[str, Any]]:
    """Lines of ``prompts.jsonl`` beside the clips: file, video_caption and, where there is one, audio_caption."""
    path = folder / "prompts.jsonl"
    try:
        listed = read_text(path).splitlines()
    except InputError as error:
        msg = f"{folder} needs a prompts.jsonl with file, video_caption and audio_caption: {error}"
        raise InputError(msg) from None
    lines = [parsed(line.encode(), f"{path}, line {number}", dict) for number, line in enumerate(listed, 1)]
    for number, line in enumerate(lines, 1):
        for name in ("file", "video_caption"):
            if not isinstance(line.get(name), str):
                msg = f"{folder}/prompts.jsonl, line {number} lacks {name}"
                raise InputError(msg)
        if Path(line["file"]).suffix not in MEDIA_SUFFIXES:
            msg = f"{folder}/prompts.jsonl, line {number}: {line['file']} is none of {', '.join(MEDIA_SUFFIXES)}"
            raise InputError(msg)
    return lines


def _source(data: str, seed: int) -> Callable[[int], Source]:
    return _toy_source(seed) if data == "toyworld" else _folder_source(Path(data))


def make_codecs(data: str, count: int, plan: Plan, out: Path) -> Iterator[Progress]:
    """Fit and train the codecs of the toy scale on clips made as they are needed; write them to `out`."""
    source = _source(data, plan.seed)
    first = [source(number) for number in range(min(count, 400))]
    frames = torch.from_numpy(np.stack([clip[0] for clip in first]))
    waves = torch.from_numpy(np.stack([clip[1] for clip in first if clip[1] is not None]))[:, None]
    torch.manual_seed(plan.seed)
    codec, sound = VideoCodec(VideoCodecConfig()), SpectrogramCodec(SpectrogramCodecConfig())
    codec.fit(frames)
    codec.to(memory_format=torch.channels_last_3d)
    sound.set_statistics(waves)

    def batches(numbers: Sequence[int]) -> Batch:
        clips = [torch.tensor(source(number % count)[0]) for number in numbers]
        return Batch(tuple(numbers), torch.stack(clips), None, (), ())

    told = {"data": data, "clips": count}
    last = None
    for last in train(CodecObjective(codec, plan), batches, told, out):
        yield last
    codec.set_statistics(frames)
    checkpoint.save_codecs(codec, sound, out, {**_card(plan, told, last), **quality(codec, sound, source, count)})


@torch.no_grad()
def quality(codec: VideoCodec, sound: SpectrogramCodec, source: Callable[[int], Source], first: int) -> dict[str, Any]:
    """How well 64 clips that were not trained on come back: PSNR of the picture, and of the sound its log-mel error."""
    clips = [source(number) for number in range(first, first + 64)]
    frames = torch.from_numpy(np.stack([clip[0] for clip in clips]))
    error = (codec.decode(codec.encode(frames)).double() - frames.double()).square().mean((1, 2, 3, 4))
    waves = torch.from_numpy(np.stack([clip[1] for clip in clips if clip[1] is not None]))[:, None]
    latents = sound.encode(waves)
    again = sound.encode(sound.decode(latents, waves.shape[-1]))
    return {
        "psnr_db": round(float((10 * torch.log10(255**2 / error)).mean()), 2),
        "spectrogram_error_in_standard_deviations": round(float((again - latents).square().mean().sqrt()), 3),
    }


def make_examples(data: str, count: int, seed: int, codecs: Path, out: Path, workers: int) -> Iterator[int]:
    """Encode `count` clips into `out`, or go on where it stands; yields how many are done."""
    codec, sound = checkpoint.load_codecs(codecs)
    spec = CLIP_SPEC
    assert spec.samples is not None
    card = {"data": data, "clips": count, "seed": seed, "codecs": digest(checkpoint.read_config(codecs))}
    out.mkdir(parents=True, exist_ok=True)
    if (out / "card.json").exists():
        if read_json(out / "card.json") != card:
            msg = f"{out} holds other examples; choose another folder"
            raise InputError(msg)
        return
    shapes = {
        "video.npy": (count, *codec.shape(spec.frames, spec.height, spec.width)),
        "audio.npy": (count, *sound.shape(spec.samples)),
    }
    video, audio = (
        np.lib.format.open_memmap(out / name, mode="w+", dtype=np.float16, shape=shape)
        for name, shape in shapes.items()
    )
    captions: list[dict[str, str]] = [{} for _ in range(count)]
    build = functools.partial(_encoder, data, seed, codecs)
    for done, (number, (seen, heard, *texts)) in enumerate(engine.stream(build, range(count), workers=workers), 1):
        video[number], audio[number] = seen, heard
        captions[number] = dict(zip(("video", "audio"), texts, strict=True))
        yield done
    video.flush()
    audio.flush()
    (out / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in captions))
    write_json(out / "card.json", card)  # last: it says that all is there


def _encoder(data: str, seed: int, codecs: Path) -> Callable[[int], tuple[np.ndarray, np.ndarray, str, str]]:
    source = _source(data, seed)
    codec, sound = checkpoint.load_codecs(codecs)

    @torch.no_grad()
    def encode(number: int) -> tuple[np.ndarray, np.ndarray, str, str]:
        frames, wave, *captions = source(number)
        if wave is None:
            msg = f"training clip {number} has no sound"
            raise InputError(msg)
        seen = codec.encode(torch.tensor(frames)[None])[0].numpy()
        return seen, sound.encode(torch.tensor(wave)[None, None])[0].numpy(), *captions

    return encode


TOWERS: dict[str, dict[str, Any]] = {
    "video": {"width": 192, "heads": 6, "layers": 6, "text": "cross", "qk_norm": "width", "patch": 2},
    "audio": {"width": 128, "heads": 4, "layers": 6, "text": "sequence", "qk_norm": "head"},
}
"""The towers of the toy scale, shaped after Wan and TangoFlux: captions by cross-attention and in the sequence, norms
over the width and over heads; one head size, so that they can be joined."""

JOINT_LAYERS = 4
SHOW_EVERY = 1000
"""Steps between samples of a training."""
_TEXT_WIDTH, _WORDS = 128, 28


def make_tower(what: str, examples: Path, codecs: Path, plan: Plan, out: Path) -> Iterator[Progress]:
    """Train a tower (``video`` or ``audio``) from scratch; write its checkpoint to `out`."""
    data = Examples.open(examples)
    video, audio = checkpoint.load_codecs(codecs)
    channels = {"video": video.config.channels, "audio": audio.config.channels}[what]
    captions = data.video_captions if what == "video" else data.audio_captions
    torch.manual_seed(plan.seed)
    config = {
        "format": checkpoint.FORMAT,
        "clip": CLIP_SPEC.to_json(),
        what: {
            "tower": {"modality": what, "channels": channels, "text_width": _TEXT_WIDTH, **TOWERS[what]},
            "text": {"words": vocabulary(captions), "width": _TEXT_WIDTH, "length": _WORDS},
        },
    }
    yield from _trained(checkpoint.build(config), replace(plan, train_text=True), data, codecs, out)


ARMS = ("t2v", "t2av")


def make_arm(arm: str, video: Path, audio: Path, examples: Path, plan: Plan, out: Path) -> Iterator[Progress]:
    """Train one arm, ``t2v`` or ``t2av``, from two pretrained towers; write its checkpoint to `out`."""
    data = Examples.open(examples)
    seen, heard = checkpoint.load(video), checkpoint.load(audio)
    torch.manual_seed(plan.seed)
    if arm == "t2v":
        parts = seen
    else:
        assert seen.video_codec is not None and heard.audio_codec is not None
        config, sound = seen.video_codec.config, heard.audio_codec.config
        second = seen.clip_spec.sample_rate or sound.sample_rate
        tau = (config.frames / float(seen.clip_spec.fps)) / (sound.samples_per_latent / second)
        dit = AVFullDiT(seen.dit.video, heard.dit.audio, JointConfig(JOINT_LAYERS, tau))
        parts = Parts(dit, seen.clip_spec, seen.video_text, heard.audio_text, sampling=seen.sampling)
    codecs = video / checkpoint.read_config(video)["codecs"]
    towers = {what: file_sha256(folder / checkpoint.WEIGHTS) for what, folder in (("video", video), ("audio", audio))}
    yield from _trained(parts, plan, data, codecs, out, {"towers": towers})


def same_settings(a: Path, b: Path) -> list[str]:
    """What differs between two arms' cards besides what sound alone uses: empty when they can be compared fairly."""
    cards = [read_json(folder / checkpoint.CARD, dict) for folder in (a, b)]
    plans = [{name: value for name, value in card["plan"].items() if name not in AUDIO_ONLY} for card in cards]
    unlike = [f"plan.{name}" for name in plans[0] if plans[0][name] != plans[1].get(name)]
    return unlike + [name for name in ("source", "towers", "seen_sha256") if cards[0].get(name) != cards[1].get(name)]


def _trained(
    parts: Parts, plan: Plan, data: Examples, codecs: Path, out: Path, more: Mapping[str, Any] | None = None
) -> Iterator[Progress]:
    parts.video_codec, parts.audio_codec = checkpoint.load_codecs(codecs)
    objective = Objective(parts, plan)
    show = functools.partial(_show, parts, data, out)
    last = None
    for last in train(objective, functools.partial(data.batch, plan.seed), data.card, out, on_save=show):
        yield last
    if os.environ.get("RANK", "0") == "0":  # of several processes one writes
        checkpoint.save(parts, out, {**_card(plan, data.card, last), **(more or {})}, codecs)


def _show(parts: Parts, data: Examples, out: Path, at: Progress, average: Mapping[str, torch.Tensor]) -> None:
    """Now and then, four clips of the averaged weights, of the first captions: ``samples/<step>-<number>.mkv``."""
    if at.step % SHOW_EVERY or parts.dit.video is None:
        return
    shown = checkpoint.build(checkpoint.config_of(parts))
    shown.learned().load_state_dict(dict(average))
    shown.video_codec, shown.audio_codec = parts.video_codec, parts.audio_codec
    shown.dit.eval()
    captions = zip(data.video_captions, data.audio_captions, strict=True)
    wishes = [Wish("training", number, *texts) for number, texts in enumerate(itertools.islice(captions, 4))]
    (out / "samples").mkdir(exist_ok=True)
    for number, clip in enumerate(make(shown, wishes, len(wishes))):
        write_clip(clip, out / "samples" / f"{at.step:06d}-{number}.mkv")


def _card(plan: Plan, source: Mapping[str, Any], last: Progress | None) -> dict[str, Any]:
    """How a checkpoint was made, for its card."""
    made: dict[str, Any] = {"plan": asdict(plan), "source": dict(source), "avbench": __version__}
    if last is not None:
        made |= {"steps": last.step, "seconds": round(last.seconds), "seen_sha256": last.seen_sha256}
        for name in ("video_loss", "audio_loss"):
            if (value := getattr(last, name)) is not None:
                made[name] = round(value, 5)
    return made
