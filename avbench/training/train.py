"""Prepares a training run of AVFullDiT from its settings: puts data and towers together.

It has three stages, each based on the one before: examples, towers, arms. Both arms start from the same two towers and
run under one plan; `same_settings` checks that they were shown the same.
"""

import contextlib
import functools
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avbench.avfulldit import checkpoint
from avbench.avfulldit.checkpoint import Parts
from avbench.avfulldit.codec import PixelCodec, PixelCodecConfig
from avbench.avfulldit.flow import Sampling
from avbench.avfulldit.model import AVFullDiT, JointConfig
from avbench.avfulldit.pipeline import Wish, make
from avbench.avfulldit.pretrained import HuggingFaceText
from avbench.avfulldit.rope import AudioPositions
from avbench.avfulldit.spectrogram import SpectrogramCodec, SpectrogramCodecConfig
from avbench.avfulldit.text import vocabulary, words_of
from avbench.core import InputError, NotMeasurable, counted, digest
from avbench.core.version import __version__
from avbench.storage.content import content_sha256
from avbench.storage.reading import file_sha256, parsed, read_json, text_lines
from avbench.storage.workers import worker_pool
from avbench.storage.writing import write_json, written_alone
from avbench.subsets import loading
from avbench.toyworld import CLIP_SPEC, FAMILIES, Scene, audio_caption, make_clip, random_scene, video_caption
from avbench.training.examples import CAPTIONS, CARD, CLIPS, Examples, Feed, example_file
from avbench.training.loop import Pace, train
from avbench.training.machine import Machine
from avbench.training.objective import Objective
from avbench.training.plan import AUDIO_ONLY, Plan
from avbench.training.state import STATE, Progress, begun_on, differing, require_own_state, trained_on

FIRST_SEED = 2_000_000
"""Seeds of training clips lie far from those of runs (0 …) and references (1 000 000 …)."""

TOYWORLD = "toyworld"
"""The data that are made instead of read."""

Source = tuple[np.ndarray, np.ndarray, str, str]
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
    prompts = [prompt for name in loading.TOY_SUBSETS for prompt in loading.load(name).prompts]
    return [Scene.of(prompt).to_json() for prompt in prompts]


def _toy_source(seed: int) -> Callable[[int], Source]:
    def make(number: int) -> Source:
        scene, wording = toy_scene(number, seed)
        clip, _ = make_clip(scene, FIRST_SEED + number)
        assert clip.audio is not None
        return clip.frames, clip.audio.waveform[0], video_caption(scene, wording), audio_caption(scene, wording)

    return make


def _folder_source(folder: Path) -> Callable[[int], Source]:
    """Clips of any size and rate, conformed to the world's clip spec as for measuring."""
    from avbench.storage.media import read_clip
    from avbench.storage.media.conform import ClipForm, in_form

    lines, form = [*_captioned(folder).values()], ClipForm.of(CLIP_SPEC)

    def make(number: int) -> Source:
        line = lines[number]
        try:
            clip = in_form(read_clip(folder / line["file"]), form)
        except NotMeasurable as reason:
            msg = f"{folder / line['file']}: {reason}; remove its line, or give a longer clip, and name another --out"
            raise InputError(msg) from None
        if clip.audio is None or clip.audio.cancels():
            lacks = "has no sound" if clip.audio is None else "has channels that cancel each other when averaged"
            msg = f"{folder / line['file']} {lacks}; remove its line, or give another clip, and name another --out"
            raise InputError(msg)
        return clip.frames, clip.audio.mono(), line["video_caption"], line.get("audio_caption") or ""

    return make


def _captioned(folder: Path) -> dict[int, dict[str, Any]]:
    """Lines of ``prompts.jsonl`` beside the clips, by number: file, video_caption and, maybe, audio_caption."""
    from avbench.storage.media import MEDIA_SUFFIXES

    path = folder / "prompts.jsonl"
    try:
        listed = [*text_lines(path)]
    except InputError as error:
        msg = f"{folder} needs a prompts.jsonl with file, video_caption and audio_caption: {error}"
        raise InputError(msg) from None
    lines = {number: parsed(line.encode(), f"{path}, line {number}", dict) for number, line in listed}
    for number, line in lines.items():
        for name in ("file", "video_caption"):
            if not isinstance(line.get(name), str):
                msg = f"{folder}/prompts.jsonl, line {number} lacks {name}"
                raise InputError(msg)
        if not isinstance(line.get("audio_caption") or "", str):
            msg = (
                f"{folder}/prompts.jsonl, line {number}: audio_caption is {line['audio_caption']!r}; it must be a text"
            )
            raise InputError(msg)
        if Path(line["file"]).suffix not in MEDIA_SUFFIXES:
            msg = f"{folder}/prompts.jsonl, line {number}: {line['file']} is none of {', '.join(MEDIA_SUFFIXES)}"
            raise InputError(msg)
        if not (folder / line["file"]).is_file():
            msg = f"{folder}/prompts.jsonl, line {number}: {line['file']} is not there"
            raise InputError(msg)
    return lines


def caption_remarks(data: str, count: int) -> Iterator[str]:
    """Report captions of the first clips of a folder whose end no tower will read, and clips without one of sound."""
    lines = [] if data == TOYWORLD else [*_captioned(Path(data)).values()][:count]
    for what in ("video", "audio"):
        if cut := sum(len(words_of(line.get(f"{what}_caption") or "")) > _WORDS for line in lines):
            yield f"the end of {counted(cut, f'{what} caption')} is ignored: towers read the first {_WORDS} words"
    if without := sum(not line.get("audio_caption") for line in lines):
        yield f"{counted(without, 'clip')} without audio_caption: trained as if it were empty"


def _source(data: str, seed: int) -> Callable[[int], Source]:
    return _toy_source(seed) if data == TOYWORLD else _folder_source(Path(data))


def make_examples(data: str, count: int, seed: int, out: Path, workers: int) -> Iterator[int]:
    """Make `count` training clips into `out`, or resume there; yields how many are done."""
    clips = [] if data == TOYWORLD else _identified(Path(data), count)
    with written_alone(out, ", or give another --out"):
        yield from _made(data, count, seed, out, workers, clips)


def _made(
    data: str, count: int, seed: int, out: Path, workers: int, clips: Sequence[Mapping[str, str]]
) -> Iterator[int]:
    spec = CLIP_SPEC
    assert spec.samples is not None
    asked = {"data": data, "clips": count, "seed": seed}
    card = read_json(out / CARD, dict) if (out / CARD).exists() else None
    if card is None:
        codec = {"audio_codec": asdict(_fitted(data, seed, min(count, _FITTED), workers))}
        card = {**asked, **({"clips_sha256": digest(clips)} if clips else {}), **codec}
        if clips:
            write_json(out / CLIPS, clips)
    elif clips and "clips_sha256" in card:  # the clips say whether it is the same folder, wherever it lies
        if (out / CLIPS).exists():
            _require_same_clips(out, Path(data), clips)
        asked |= {"data": card["data"], "clips_sha256": digest(clips)}
    if changed := differing(card, asked):
        msg = f"{out} holds other examples ({changed}); choose another folder"
        raise InputError(msg)
    sound = SpectrogramCodec(checkpoint.config_part(card["audio_codec"], SpectrogramCodecConfig))
    frame_shape, begun = (spec.frames, spec.height, spec.width, 3), (out / CAPTIONS).exists()
    with contextlib.ExitStack() as files:
        write_video, write_audio = (
            files.enter_context(example_file(out / name, (count, *shape), dtype, begun=begun))
            for name, shape, dtype in (
                ("video.npy", frame_shape, np.uint8),
                ("audio.npy", sound.shape(spec.samples), np.float16),
            )
        )
        write_json(out / CARD, card)
        done = _whole_lines(out / CAPTIONS)
        file = files.enter_context((out / CAPTIONS).open("a", encoding="utf-8"))
        build = functools.partial(_encoder, data, seed, sound.config)
        pool = worker_pool.LocalPool(workers, survive_crashes=False)
        waiting: dict[int, dict[str, str]] = {}
        for number, (frames, sounds, *texts) in pool.map_unordered(build, range(done, count)):
            write_video(number, frames)
            write_audio(number, sounds)
            waiting[number] = dict(zip(("video", "audio"), texts, strict=True))
            while done in waiting:  # lines are in order, so that a line means that all before it are there
                file.write(json.dumps(waiting.pop(done)) + "\n")
                done += 1
            file.flush()
            yield done


def _whole_lines(path: Path) -> int:
    """Count the lines of a file; an incomplete last one, which a killed process left, is cut off."""
    with path.open("ab+") as file:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
    return content.count(b"\n")


def _identified(folder: Path, count: int) -> list[dict[str, str]]:
    """What the first clips of a folder are: the hash of each file, and its captions."""
    lines = [*_captioned(folder).values()]
    if count > len(lines):
        msg = f"{folder} holds {counted(len(lines), 'clip')}; --clips must not exceed that"
        raise InputError(msg)
    return [
        {
            "file": line["file"],
            "sha256": content_sha256(folder / line["file"]),
            "video_caption": line["video_caption"],
            "audio_caption": line.get("audio_caption") or "",
        }
        for line in lines[:count]
    ]


def _require_same_clips(out: Path, folder: Path, clips: Sequence[Mapping[str, str]]) -> None:
    """Raise InputError if examples were begun with clips that have changed since."""
    for number, then, now in zip(_captioned(folder), read_json(out / CLIPS, list), clips, strict=False):
        if then != now:
            what = "the captions are" if then["sha256"] == now["sha256"] else "the clip is"
            msg = (
                f"{folder}/prompts.jsonl, line {number}: {what} not what {out} was begun with. Put back {then['file']} "
                "and its captions, or choose another folder for the new examples"
            )
            raise InputError(msg)


_FITTED = 360
"""Clips over which the audio codec's statistics are measured."""


def _fitted(data: str, seed: int, count: int, workers: int) -> SpectrogramCodecConfig:
    build = functools.partial(_source, data, seed)
    clips = dict(worker_pool.LocalPool(workers, survive_crashes=False).map_unordered(build, range(count)))
    waves = np.stack([clips[number][1] for number in range(count)])
    return SpectrogramCodec(SpectrogramCodecConfig()).measured(torch.from_numpy(waves)[:, None])


def _encoder(
    data: str, seed: int, config: SpectrogramCodecConfig
) -> Callable[[int], tuple[np.ndarray, np.ndarray, str, str]]:
    source, sound = _source(data, seed), SpectrogramCodec(config)

    @torch.no_grad()
    def encode(number: int) -> tuple[np.ndarray, np.ndarray, str, str]:
        frames, wave, of_video, of_audio = source(number)
        return frames, sound.encode(torch.tensor(wave)[None, None])[0].numpy(), of_video, of_audio

    return encode


TOWERS: dict[str, dict[str, Any]] = {
    "video": {"width": 256, "heads": 4, "layers": 8, "levels": [64, 128], "text": "cross", "qk_norm": "width"},
    "audio": {"width": 192, "heads": 3, "layers": 6, "text": "sequence", "qk_norm": "head"},
}
"""The towers of the toy scale, shaped after Wan and TangoFlux: captions by cross-attention and in the sequence, norms
over the width and over heads; one head size, so that they can be joined."""

JOINT_LAYERS = 4
SAMPLING = Sampling(steps=12, solver="dpm++", shift=2.0, video_guidance=1.0, audio_guidance=1.0)
"""Sampling of the toy scale: without guidance, which its models do not need and which would double the cost."""
_TEXT_WIDTH, _WORDS = 128, 32


@dataclass(frozen=True)
class Session:
    """Where a training is stored and how it runs. None of these settings changes what is learned, except for
    rounding.
    """

    examples: Examples
    out: Path
    machine: Machine
    """How a training is run that begins; one that is resumed is run as it was begun."""
    pace: Pace = field(default_factory=Pace)
    show_every: int = 1000
    """Steps between sampled clips; a multiple of `Pace.save_every`."""


def require_tower_inputs(plan: Plan, data: Examples, out: Path) -> None:
    """Raise InputError if `make_tower` could not begin or resume in `out`."""
    require_own_state(out, _of_tower(plan), _described(data))


def require_arm_inputs(
    video: Path, audio: Path, plan: Plan, data: Examples, folders: Iterable[Path], others: Iterable[Path] = ()
) -> None:
    """Raise InputError if `make_arm` could not begin or resume in one of the folders, if one of the `others` holds an
    arm of other settings, or if two of them were begun in different ways, so that they could not be compared.
    """
    folders, others = list(folders), list(others)
    _, audio_parts = load_towers(video, audio)
    require_codec_of(data, audio_parts, audio)
    source, origin = _described(data), _origin(video, audio)
    for folder in folders:
        require_own_state(folder, plan, source, origin)
    for folder in others:
        if not (folder / checkpoint.CARD).exists():
            continue
        card = read_json(folder / checkpoint.CARD, dict)
        if differing := _unequal_fields(card, {**card, "plan": asdict(plan), "source": source, **origin}):
            msg = f"{folder} was trained under other settings ({', '.join(differing)}): give the same, or another --out"
            raise InputError(msg)
    ways = {way: folder for folder in (*folders, *others) if (way := trained_on(folder))}
    if len(ways) > 1:
        told = " and ".join(f"{folder} ({way})" for way, folder in ways.items())
        msg = (
            f"two arms that are compared are trained in one way, and not {told}: remove one to train it like the other"
        )
        raise InputError(msg)


def require_codec_of(data: Examples, tower: Parts, place: Path) -> None:
    """Raise InputError unless the examples' sound was encoded by the codec of the audio tower, which decodes it."""
    assert tower.audio_codec is not None  # it is an audio tower
    if checkpoint.config_part(data.card["audio_codec"], SpectrogramCodecConfig) != tower.audio_codec.config:
        msg = (
            f"{data.folder} was encoded by another audio codec than that of {place}: train the tower on these examples"
        )
        raise InputError(msg)


def _origin(video: Path, audio: Path) -> dict[str, Any]:
    """What an arm's state and card say of the towers that it was made from."""
    places = {"video": video, "audio": audio}
    return {"towers": {what: file_sha256(folder / checkpoint.WEIGHTS) for what, folder in places.items()}}


def _of_tower(plan: Plan) -> Plan:
    return replace(plan, train_text=True)


def _described(data: Examples) -> dict[str, Any]:
    """What a training's state and card say of its examples."""
    return {name: value for name, value in data.card.items() if name != "audio_codec"}


def make_tower(what: str, plan: Plan, session: Session) -> Iterator[Progress]:
    """Train a tower (``video`` or ``audio``) from scratch; write its checkpoint."""
    data = session.examples
    data.wait_for(plan.reached(0, len(data)))
    sound = checkpoint.config_part(data.card["audio_codec"], SpectrogramCodecConfig)
    captions = [line[what] for line in data.captions[: plan.reached(0, len(data))]]
    torch.manual_seed(plan.seed)
    parts = new_tower(what, TOWERS[what], sound, vocabulary(captions))
    yield from _trained(parts, _of_tower(plan), session)


def new_tower(
    what: str, settings: Mapping[str, Any], sound: SpectrogramCodecConfig, words: Sequence[str], length: int = _WORDS
) -> Parts:
    """An untrained tower with its codec and caption encoder.

    Args:
        what: ``video`` or ``audio``.
        settings: of the tower, as in `TOWERS`.
        sound: the audio codec of the examples.
        words: the caption encoder's vocabulary.
        length: words of a caption that it reads.
    """
    tower = {"modality": what, "channels": 3 if what == "video" else sound.channels, "text_width": _TEXT_WIDTH}
    config = {
        "format": checkpoint.FORMAT,
        "clip": CLIP_SPEC.to_json(),
        "sampling": asdict(SAMPLING),
        what: {
            "tower": {**tower, **settings},
            "text": {"words": words, "width": _TEXT_WIDTH, "length": length},
        },
        f"{what}_codec": asdict(PixelCodecConfig() if what == "video" else sound),
    }
    return checkpoint.build(config)


ARMS = ("t2v", "t2av")


def make_arm(arm: str, video: Path, audio: Path, plan: Plan, session: Session) -> Iterator[Progress]:
    """Train one arm, ``t2v`` or ``t2av``, from two pretrained towers; write its checkpoint."""
    video_parts, audio_parts = load_towers(video, audio)
    torch.manual_seed(plan.seed)
    parts = video_parts if arm == "t2v" else joined(video_parts, audio_parts, JOINT_LAYERS)
    yield from _trained(parts, plan, session, _origin(video, audio))


def load_towers(video: Path, audio: Path) -> tuple[Parts, Parts]:
    """Load two towers. Raises InputError if a folder holds no tower, an unfinished one, or one of the other kind."""
    for folder in (video, audio):
        if (folder / STATE).exists() and not (folder / checkpoint.CONFIG).exists():
            msg = f"the training of {folder} is not finished: give its `avbench train tower` again"
            raise InputError(msg)
    video_parts, audio_parts = checkpoint.load(video), checkpoint.load(audio)
    for what, folder, own, other in (
        ("video", video, video_parts.video_codec, video_parts.audio_codec),
        ("audio", audio, audio_parts.audio_codec, audio_parts.video_codec),
    ):
        if own is None or other is not None:
            msg = f"{folder} is no {what} tower; give a folder that `avbench train tower {what}` wrote"
            raise InputError(msg)
    return video_parts, audio_parts


def joined(video_parts: Parts, audio_parts: Parts, layers: int, positions: AudioPositions = "sync") -> Parts:
    """Join two towers in their last `layers` layers; τ follows from the rates of their codecs."""
    video_codec, audio_codec = video_parts.video_codec, audio_parts.audio_codec
    assert isinstance(video_codec, PixelCodec) and isinstance(
        audio_codec, SpectrogramCodec
    )  # pretrained towers: pair.py
    config, sound = video_codec.config, audio_codec.config
    second = video_parts.clip_spec.sample_rate or sound.sample_rate
    tau = (config.frames / float(video_parts.clip_spec.fps)) / (sound.samples_per_latent / second)
    dit = AVFullDiT(video_parts.dit.video, audio_parts.dit.audio, JointConfig(layers, tau, positions))
    texts = video_parts.video_text, audio_parts.audio_text
    return Parts(dit, video_parts.clip_spec, *texts, video_codec, audio_codec, sampling=video_parts.sampling)


def go_on(arm: Path, plan: Plan, session: Session) -> Iterator[Progress]:
    """Train a finished arm further; its earlier card is kept in the new one, as ``before``."""
    before = read_json(arm / checkpoint.CARD, dict)
    parts = checkpoint.load(arm)
    yield from _trained(parts, plan, session, {"towers": before["towers"], "before": before})


def same_settings(a: Path, b: Path) -> list[str]:
    """Return the fields in which two arms' cards differ, except those of sound; none if the arms can be compared
    fairly.
    """
    return _unequal_fields(*(read_json(folder / checkpoint.CARD, dict) for folder in (a, b)))


def _unequal_fields(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    plans = [{name: value for name, value in card["plan"].items() if name not in AUDIO_ONLY} for card in (a, b)]
    differing = [f"plan.{name}" for name in plans[0] if plans[0][name] != plans[1].get(name)]
    differing += [name for name in ("source", "towers", "machine", "seen_sha256") if a.get(name) != b.get(name)]
    if "before" in a and "before" in b:
        return differing + [f"before.{name}" for name in _unequal_fields(a["before"], b["before"])]
    return differing + ["before"] * (("before" in a) != ("before" in b))


def _trained(parts: Parts, plan: Plan, session: Session, origin: Mapping[str, Any] | None = None) -> Iterator[Progress]:
    """Train parts as the session asks; `origin` goes into the card."""
    first = os.environ.get("RANK", "0") == "0"  # of several processes one writes
    with written_alone(session.out, ", or give another --out") if first else contextlib.nullcontext():
        session = replace(session, machine=begun_on(session.out) or session.machine)
        data, machine = session.examples, session.machine
        video_text, audio_text = parts.video_text, parts.audio_text
        assert not isinstance(video_text, HuggingFaceText) and not isinstance(audio_text, HuggingFaceText)
        feed = Feed(data, torch.device(machine.device), video_text, audio_text)
        source, show = _described(data), functools.partial(_show, parts, data, session)
        trained = functools.partial(train, origin=origin, pace=session.pace, on_save=show)
        last = None
        for last in trained(Objective(parts, plan), feed, len(data), source, session.out, machine):
            yield last
        if first and (last is None or last.step == plan.steps):
            checkpoint.save(parts, session.out, {**_card(plan, source, machine, last), **(origin or {})})


def _show(parts: Parts, data: Examples, session: Session, at: Progress, average: Mapping[str, torch.Tensor]) -> None:
    """Sample four clips with the averaged weights, for the first captions, from time to time:
    ``samples/<step>-<number>.mkv``.
    """
    if at.step % session.show_every or parts.dit.video is None:
        return
    from avbench.storage.media import write_clip

    shown = checkpoint.build(checkpoint.config_of(parts))
    shown.to(session.machine.device)
    shown.learned().load_state_dict(dict(average))
    shown.dit.eval()
    first = itertools.islice(data.captions, 4)
    wishes = [Wish("training", number, line["video"], line["audio"]) for number, line in enumerate(first)]
    samples = session.out / "samples"
    samples.mkdir(exist_ok=True)
    for number, clip in enumerate(make(shown, wishes, len(wishes))):
        write_clip(clip, samples / f"{at.step:06d}-{number}.mkv")


def _card(plan: Plan, source: Mapping[str, Any], machine: Machine, last: Progress | None) -> dict[str, Any]:
    """Return the record of how a checkpoint was made, for its card."""
    made: dict[str, Any] = {
        "plan": asdict(plan),
        "source": dict(source),
        "machine": asdict(machine),
        "avbench": __version__,
    }
    if last is not None:
        made |= {"steps": last.step, "seconds": round(last.seconds), "seen_sha256": last.seen_sha256}
        for name in ("video_loss", "audio_loss"):
            if (value := getattr(last, name)) is not None:
                made[name] = round(value, 5)
    return made
