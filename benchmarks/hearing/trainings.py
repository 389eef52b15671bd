"""Trains the arms of the study: the same towers, examples, noise and steps; only what they hear differs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avbench.avfulldit import BUNDLED, checkpoint
from avbench.avfulldit.checkpoint import Parts
from avbench.avfulldit.spectrogram import SpectrogramCodecConfig
from avbench.avfulldit.text import vocabulary
from avbench.core import InputError
from avbench.storage.reading import file_sha256, read_json
from avbench.storage.writing import write_json
from avbench.toyworld import CLIP_SPEC, FAMILIES
from avbench.training import train
from avbench.training.examples import Batch, Examples, Feed
from avbench.training.loop import train as follow
from avbench.training.machine import Machine
from avbench.training.objective import Objective
from avbench.training.plan import Plan
from avbench.training.state import STATE, Progress, differing
from benchmarks.hearing.arms import ARM, Arm, joined_caption, without_sound

_PARTNER = 37
"""So many clips further on, of the same family, is the clip whose sound the arm ``other`` hears."""
_LATE_SECONDS = 0.5
_REPORT_EVERY = 20


@dataclass(frozen=True)
class Study:
    """The plan, and where it is carried out."""

    plan: Mapping[str, Any]
    folder: Path
    machine: Machine
    examples: Examples
    _first: dict[int, Examples] = field(default_factory=dict)

    def first(self, count: int) -> Examples:
        """The first examples alone, once they are there."""
        if count not in self._first:
            all_of = self.examples
            all_of.wait_for(count)
            arrays = (all_of.video[:count], all_of.audio[:count])
            self._first[count] = Examples(all_of.folder, *arrays, all_of.card, all_of.captions[:count])
        return self._first[count]

    @property
    def arms(self) -> list[Arm]:
        """All of them, in the plan's order."""
        return [Arm(**row) for row in self.plan["arm"]]

    def trainings(self) -> list[tuple[Arm, int]]:
        """What is trained, in order: in a block whole rounds of seeds, so that whatever is done can be compared."""
        return sorted(
            ((arm, seed) for arm in self.arms for seed in range(arm.seeds)), key=lambda one: (one[0].block, one[1])
        )

    def along(self, arm: Arm) -> list[int]:
        """The steps before the last at which the arm is looked at."""
        training, followed = self.plan["training"], arm.name in self.plan["secondary"].get("along", ())
        return [round(share * training["steps"]) for share in training["along"]] if followed else []

    def tower(self, what: str) -> Path:
        """The checkpoint of ``video`` or ``audio``: its own, or one of the bundled, as the plan says."""
        name = self.plan["towers"][what].get("bundled")
        return BUNDLED.get(name) or self.folder / f"tower-{what}"


class SoundReplaced:
    """Batches in which the sound is replaced by what an arm hears."""

    def __init__(self, arm: Arm, feed: Feed, parts: Parts, clips: int) -> None:
        self._arm, self._feed, self._clips = arm, feed, clips
        self._silence: Tensor | None = None
        self._late = 0
        if parts.audio_codec is not None:
            samples, rate = CLIP_SPEC.samples, CLIP_SPEC.sample_rate
            assert samples is not None and rate is not None
            self._silence = parts.audio_codec.encode(torch.zeros(1, 1, samples)).to(next(parts.dit.parameters()).device)
            self._late = round(_LATE_SECONDS * rate / parts.audio_codec.config.samples_per_latent)

    def __call__(self, rows: np.ndarray) -> Batch:
        """The examples `rows`."""
        batch, sound = self._feed(rows), self._arm.sound
        if batch.audio is None or sound == "own":
            return batch
        assert self._silence is not None
        silence = self._silence.to(batch.audio)
        if sound == "other":
            whole = self._clips // len(FAMILIES) * len(FAMILIES)  # families take turns, so a partner keeps the family
            partner = self._feed((rows + _PARTNER * len(FAMILIES)) % whole)
            return batch._replace(audio=partner.audio, audio_captions=partner.audio_captions)
        if sound == "silence":
            return batch._replace(audio=silence.expand_as(batch.audio).contiguous())
        if sound == "late":
            start = silence[..., : self._late].expand(len(rows), -1, -1)
            return batch._replace(audio=torch.cat([start, batch.audio[..., : -self._late]], dim=-1))
        return batch._replace(audio=torch.zeros_like(batch.audio))


def train_tower(study: Study, what: str) -> Iterator[Progress]:
    """Train ``video`` or ``audio``. Its caption encoder knows the words of both captions: one arm reads both."""
    out, shape = study.tower(what), dict(study.plan["towers"][what])
    if "bundled" in shape and (out / checkpoint.CONFIG).exists():
        return
    plan = Plan(shape.pop("steps"), shape.pop("batch"), 2e-3, warmup=200, ema=0.999, train_text=True, seed=1)
    if _is_finished(out, plan, {"tower": what}):
        return
    data = study.first(study.plan["examples"]["clips"])
    sound = checkpoint.config_part(data.card["audio_codec"], SpectrogramCodecConfig)
    words = vocabulary(joined_caption(line["video"], line["audio"]) for line in data.captions)
    torch.manual_seed(plan.seed)
    parts = train.new_tower(what, {**train.TOWERS[what], **shape}, sound, words, length=48)
    feed = Feed(data, torch.device(study.machine.device), parts.video_text, parts.audio_text)
    yield from _trained(study, parts, plan, feed, len(data), out, {"tower": what})


def train_arm(study: Study, arm: Arm, seed: int) -> Iterator[Progress]:
    """Train one arm once; its checkpoints lie in ``checkpoints/ARM-SEED``, earlier ones in ``…@STEP``."""
    out = study.folder / "checkpoints" / f"{arm.name}-{seed}"
    given = {name: value for name, value in study.plan["training"].items() if name != "along"}
    plan = Plan(**given, seed=100 + seed, audio_weight=0.0 if arm.sound == "empty" else arm.audio_weight)
    clips = arm.clips or study.plan["examples"]["clips"]
    data = study.first(clips)
    if arm.captions == "both":
        lines = [{**line, "video": joined_caption(line["video"], line["audio"])} for line in data.captions]
        data = replace(data, captions=lines)
    folders = {what: study.tower(what) for what in study.plan["towers"]}
    towers = {what: file_sha256(folder / checkpoint.WEIGHTS) for what, folder in folders.items()}
    more = {"arm": asdict(arm), "towers": towers}
    if _is_finished(out, plan, more):
        return
    torch.manual_seed(plan.seed)
    parts = checkpoint.load(folders["video"])
    if arm.sound != "none":
        heard = checkpoint.load(folders["audio"])
        train.require_codec_of(data, heard, folders["audio"])
        parts = train.joined(parts, heard, study.plan["joint"]["layers"], arm.positions)
    if arm.sound == "empty":
        parts.dit = without_sound(parts.dit)
    feed = Feed(data, torch.device(study.machine.device), parts.video_text, parts.audio_text)
    batches = SoundReplaced(arm, feed, parts, clips)
    yield from _trained(study, parts, plan, batches, clips, out, more, study.along(arm))


def _is_finished(out: Path, plan: Plan, more: Mapping[str, Any]) -> bool:
    """Whether this training is finished in the folder. Raises InputError if another one is."""
    if not (out / checkpoint.CONFIG).exists():
        return False
    card = read_json(out / checkpoint.CARD, dict[str, Any])
    if changed := differing({**card, **_recipe(card)}, {"plan": asdict(plan), **_recipe(more)}):
        msg = f"{out} holds another training ({changed}); choose another folder"
        raise InputError(msg)
    return True


def _recipe(card: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a card says of a tower or an arm, what decides the training: not its name, nor when it is trained."""
    recipe = {name: card[name] for name in ("tower", "towers") if name in card}
    if "arm" in card:
        recipe["arm"] = {name: card["arm"].get(name) for name in ("sound", "captions", "positions", "clips")}
    return recipe


def _trained(
    study: Study,
    parts: Parts,
    plan: Plan,
    batches: Callable[[np.ndarray], Batch],
    clips: int,
    out: Path,
    more: Mapping[str, Any],
    along: Sequence[int] = (),
) -> Iterator[Progress]:
    source = {**{name: value for name, value in study.examples.card.items() if name != "audio_codec"}, "first": clips}

    def keep(at: Progress, average: Mapping[str, Tensor]) -> None:
        if at.step not in along:
            return
        earlier = checkpoint.build(checkpoint.config_of(parts))
        earlier.learned().load_state_dict(dict(average))
        save(earlier, out.with_name(f"{out.name}@{at.step}"), at)

    def save(what: Parts, folder: Path, at: Progress) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if "arm" in more:
            write_json(folder / ARM, more["arm"])
        card = {**more, "plan": asdict(plan), "source": source, "machine": asdict(study.machine), **asdict(at)}
        checkpoint.save(what, folder, card)

    last = None
    for last in follow(
        Objective(parts, plan),
        batches,
        clips,
        source,
        out,
        study.machine,
        save_every=max(_REPORT_EVERY, plan.steps // 4 // _REPORT_EVERY * _REPORT_EVERY),
        report_every=_REPORT_EVERY,
        on_save=keep,
        origin=_recipe(more),
    ):
        yield last
    if last is not None:
        save(parts, out, last)
        (out / STATE).unlink(missing_ok=True)
