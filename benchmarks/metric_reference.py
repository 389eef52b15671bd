"""Writes docs/metrics.md from the code, with the cost of each feature on this machine.

    python benchmarks/metric_reference.py --only                # keeps all costs: 5 s, enough for a new metric
    python benchmarks/metric_reference.py                       # measures every feature anew
    python benchmarks/metric_reference.py --only imagebind viclip     # measures these, and keeps the others' costs

A feature's cost is in CPU seconds of one thread, for clips of the embedded world (64×64, 16 frames, 2 s of sound): the
median over five, or one clip where that takes more than 10 s. A feature that refuses such clips is measured on a larger
one, which costs.csv names. Where the weights are not to be had, the network has random ones of the published size
(random_networks.py), which cost the same.

What several metrics have in common is written once: a section for each module of features, and the shared notes.
"""

import argparse
import contextlib
import csv
import inspect
import re
import statistics
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from avbench.core import Audio, Clip, Direction, InputError, NotMeasurable, Prompt, resolve
from avbench.features.requirements import PACKAGES, requires
from avbench.features.table import FEATURES, Requires
from avbench.metrics.table import METRICS, Metric
from avbench.subsets import loading
from avbench.toyworld import Scene, make_clip

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
COSTS = Path(__file__).parent / "costs.csv"
LARGER = {"flow-raft": 4, "raft-vbench": 4, "vbench-smoothness": 4, "dover": 40, "synchformer": 40, "syncnet": 40}
"""Features that refuse 64×64 pixels or 2 s → frames of the clip on which they are measured instead."""
USUAL_CLIP = "16 frames of 64×64 with 2 s of sound"
BETTER = {
    Direction.HIGHER: "higher",
    Direction.LOWER: "lower",
    Direction.BAND: "band",
    Direction.NEITHER: "–",
}
TITLES = {
    "video.i3d": "FVD and other distances of I3D features",
    "video.i3d.conventions": "FVD as other codes compute it",
    "video.i3d.user_weights": "FVD with the weights files of other codes",
    "video.videomae": "VideoMAE",
    "video.vjepa2": "V-JEPA 2",
    "video.dover": "Technical and aesthetic quality: DOVER",
    "perceptual.lpips": "LPIPS",
    "flow": "Motion by optical flow",
    "flow.raft": "Motion by optical flow, with RAFT",
    "audio.onsets": "Sound onsets",
    "audio.levels": "Sound levels",
    "audio.musicnn": "Audio distances: musicnn",
    "audio.networks": "Audio distances: VGGish, PANNs and CLAP",
    "audio.text": "Sound and its caption: CLAP",
    "audio.ms_clap": "Sound and its caption: MS-CLAP",
    "audio.aesthetics": "Sound: Audiobox-Aesthetics",
    "audio.perception": "Sound, picture and captions: PE-AV",
    "audio.imagebind": "Sound and picture: ImageBind",
    "audio.speech": "Speech: word error rate",
    "sync.av_align": "AV-Align",
    "sync.synchformer": "DeSync by Synchformer",
    "sync.syncnet": "Lip sync by SyncNet",
    "vbench.dynamic_degree": "VBench: dynamic degree",
    "vbench.pixels": "VBench: temporal flickering",
    "vbench.smoothness": "VBench: motion smoothness",
    "vbench.quality": "VBench: imaging and aesthetic quality",
    "vbench.viclip": "VBench: overall consistency and temporal style",
    "vbench.consistency": "VBench: consistency; text alignment",
    "judge.qwen": "Physics: a vision-language model as a judge",
    "judge.served": "Physics: a judge behind a server",
    "toyworld": "Physics of the embedded world",
}
"""Module of features, below avbench.features → title of its section."""
INPUTS = {
    Requires.CLIP: "",
    Requires.PROMPT: "takes a clip with its prompt; ",
    Requires.REFERENCE_CLIP: "takes a clip with its reference clip; ",
    Requires.SEEDS: "takes all clips of a prompt; ",
}
USUAL_SETTINGS = {"ddof": 1, "degree": 3, "coef0": 1}
"""Settings that the shared notes state."""
USUAL_LEAST = 24
"""Least number of clips of most distances, which the shared notes state."""
REPEATED = (
    "Layout: ",
    "The sign: ",
    "Source: the network",
    "Frames are resized",
    "Each class follows",
)
"""Beginnings of the paragraphs of docstrings that a protocol repeats."""
NOTED = (
    r" It was tested on random weights only: no number computed with the real weights was checked\.",
    r"[;,]? (?:and )?no number (?:computed with|of) the real weights was checked(?=[.)])",
    r" No number (?:computed with|of) the real weights was checked\.",
    r"; the user provides (?:them|the weights)(?=\.)",
    r",? if the user provides them",
    r" A frozen clip [\w ]+,? ?1: compare two sets of clips by [\w ]+, and do not maximise it\.",
    r", and a frozen clip has the highest possible value, 1",
    r" It shows how similar two sets of clips are in this respect, not which is better\.",
    r" It needs no reference; it should match the reference's value\.",
    r", which should match the reference's(?=\.)",
    r" The user provides the weights\.",
)
"""Sentences of docstrings that the shared notes or the table of metrics state."""
USUAL_VALUES = {"mono": "mean", "resampler": "resample_poly", "silent_below": -90.0}
"""Values of protocols that the shared notes state, beside float32 and native."""
LEFT_OUT = (
    "name",
    "version",
    "weights_sha256",
    "head_sha256",
    "heads_sha256",
    "detector_sha256",
    "tokenizer_sha256",
    "questions_sha256",
    "reference_clips",
)
"""Values of protocols that only identify files and versions."""
SHARED = {
    "frechet:frechet_distance": "Fréchet distance",
    "kernel:kernel_distance": "kernel distance",
    "neighbours:neighbour_share": "share of neighbours",
}
"""Function that several metrics use → title of its note."""
TRIED = len({line.partition(",")[0] for line in PAGE.with_name("known-bad.csv").read_text().splitlines()[1:]})
"""How many metrics were tried on known-bad models."""
INTRODUCTION = f"""# Every metric

You get the definition of each metric: what it measures, its direction and range, the settings that decide it, its
source, and how closely it agrees with the original.

```
avbench list metrics          # the same list in the terminal
avbench list metrics clap     # only the metrics with this word in their name
```

This page is written by `python benchmarks/metric_reference.py` from the code. [What each metric
detects](known-bad.md) shows by experiment what {TRIED} of them react to."""
NOTES = """## Shared notes

**Direction.** *Band*: the value should match the reference's; neither more nor less is better. Compare sets of clips by
it, and do not maximise it: a frozen clip must not win by being still.

**Metrics of single clips.** The value is the mean over clips, with a 95 % interval clustered by prompt. Clips that a
metric cannot measure are left out and counted.

**Distances** compare the run's clips with those of a reference. A distance depends mostly on the number of clips n, so
three numbers at the same n stand beside it where they are known: the *null* (its value if run and reference had one
distribution), a p-value by permutation, and the *floor* (the score of n of the reference's own clips, if it has 2 n).
The value is hidden if either side has fewer clips than the least n, 24 unless another is given.
[Validity](validity.md) has the evidence.

**Tables of metrics.** Metrics in **bold** are computed by default. *From* names the feature if the section has several,
the columns that a distance compares, and settings: ddof is 1, a kernel has degree 3 and coef0 1, unless given. A metric
that is *the same with* another network equals, in all else, the one whose name it extends.

**Features.** Each section ends with its features: the CPU time for a clip of 16 frames of 64×64 with 2 s of sound, or
for the clip that is named, on one core, if it was measured, and the settings that decide the numbers. I3D, LPIPS, flow
by DIS, onsets, levels and musicnn were timed on the Intel processor of [What a clip costs](speed.md), the others on
other processors, so times compare only roughly. Unless given, precision is float32, and size and rate of the frames are
native; sound is mixed to mono by the mean, resampled by scipy's resample_poly, and refused where it never exceeds -90
dBFS; `onsets` and `levels` measure silence (`onset_rate` 0, `silence` 1), and `levels` all channels.
Hashes, versions and explanations are in the protocol.json files of a run folder. Weights marked (fetch) are in no
package: `avbench weights fetch NAME` downloads them, or takes your copy (`--file PATH`). Their metrics were checked on
random weights only, never with the real ones."""


@dataclass(frozen=True)
class Cost:
    """What a feature costs for one clip."""

    milliseconds: float
    clip: str = ""
    """The clip in words; empty for the usual one."""

    @property
    def words(self) -> str:
        """Such as ``31.5 ms``."""
        unit, per = ("s", 1000) if self.milliseconds >= 10_000 else ("ms", 1)
        of = f" for {self.clip}" if self.clip else ""
        return f"{float(f'{self.milliseconds / per:.3g}'):g} {unit}{of}"


def known_costs() -> dict[str, Cost]:
    """The costs in costs.csv, by feature."""
    with COSTS.open() as file:
        return {row["feature"]: Cost(float(row["milliseconds"]), row["clip"]) for row in csv.DictReader(file)}


def costs(features: Iterable[str]) -> dict[str, Cost]:
    """What one clip costs, by feature, for the features that can run here."""
    torch.set_num_threads(1)
    known = {}
    scenes = loading.load("toy-object-contact").prompts[:5]
    clips = [(make_clip(Scene.of(prompt), 0)[0], prompt) for prompt in scenes]
    for name in features:
        if (found := _built(name)) is None:
            continue
        look, said = found
        if name in LARGER:
            clip, words = _larger(clips[0][0], LARGER[name])
            known[name] = Cost(_milliseconds(look, name, clip, clips[0][1]), f"{words} {said}".strip())
            continue
        with contextlib.suppress(NotMeasurable):
            spent = [_milliseconds(look, name, *clips[0])]  # the first call also sets up the libraries
            spent = [_milliseconds(look, name, *one) for one in clips] if spent[0] < 10_000 else spent
            known[name] = Cost(statistics.median(spent), f"{USUAL_CLIP} {said}" if said else "")
    return known


def _built(name: str) -> tuple[Any, str] | None:
    """The feature, with random weights where there are no real ones, and what is said of those; None without any."""
    from benchmarks import random_networks

    try:
        return resolve(FEATURES[name])(), ""
    except InputError:
        look = random_networks.built(name)
        return look and (look, random_networks.SAID.get(name, ""))


def _larger(clip: Clip, frames: int) -> tuple[Clip, str]:
    """A clip of 256×256 pixels, and what it is in words."""
    assert clip.audio is not None
    seconds = float(frames / clip.fps)
    order = np.resize(np.concatenate([np.arange(len(clip.frames)), np.arange(len(clip.frames))[::-1]]), frames)
    shown = clip.frames[order].repeat(4, axis=1).repeat(4, axis=2)
    rate = clip.audio.sample_rate
    sound = np.resize(clip.audio.waveform[0], (1, round(seconds * rate)))
    return Clip(shown, clip.fps, Audio(sound, rate)), f"{frames} frames of 256×256 with {seconds:g} s of sound"


def _milliseconds(look: Any, name: str, clip: Clip, prompt: Prompt) -> float:
    """CPU time of one call. Raises NotMeasurable as the feature does."""
    shown = {
        Requires.CLIP: (clip,),
        Requires.PROMPT: (clip, prompt),
        Requires.REFERENCE_CLIP: (clip, clip),
        Requires.SEEDS: ([clip, clip],),
    }
    start = time.process_time()
    look(*shown[requires(name)])
    return 1000 * (time.process_time() - start)


def page() -> str:
    """The page as markdown."""
    known = known_costs()
    modules: dict[str, list[str]] = {}
    for feature, place in FEATURES.items():
        modules.setdefault(place.partition(":")[0], []).append(feature)
    sections = []
    for module, features in modules.items():
        title = TITLES[module.removeprefix("avbench.features.")]
        metrics = [metric for metric in METRICS if metric.feature in features]
        rows = _joined([_metric(metric, several=len(features) > 1) for metric in metrics])
        sections += [
            f"## {title}",
            _table(["metric", "measures", "better", "range", "from"], rows),
            *_unmeasurable(metrics),
            _prose(module),
            "\n".join(_feature(one, known.get(one)) for one in features),
        ]
    notes = [
        f"**{title[0].upper()}{title[1:]}.** {_summary(resolve(f'avbench.metrics.{name}'))}"
        for name, title in SHARED.items()
    ]
    return "\n\n".join([INTRODUCTION, NOTES, *notes, *sections]) + "\n"


def _metric(metric: Metric, *, several: bool) -> list[str]:
    """A row; it names the feature if its section has `several`, and the settings that are not 0."""
    name = metric.function.removeprefix("avbench.metrics.")
    how = [f"`{metric.feature}`"] if several else []
    how += [f"with `{metric.beside}`"] if metric.beside else []
    if metric.column:
        columns = f"`{metric.column}`" + (f" and `{metric.reference_column}`" if metric.reference_column else "")
        how.append(f"{SHARED[name]} of {columns}" if name in SHARED else columns)
    settings = {one: value for one, value in metric.settings.items() if one != "measure"}
    how += [f"{one} {value:g}" for one, value in settings.items() if value != USUAL_SETTINGS.get(one, 0)]
    if metric.least_clips not in (0, USUAL_LEAST):
        how.append(f"least n {metric.least_clips}")
    name = f"**`{metric.name}`**" if metric.usual else f"`{metric.name}`"
    if network := _other_network(metric):
        return [name, f"The same with {network}.", "", "", f"`{metric.feature}`" if several else ""]
    return [name, metric.question, BETTER[metric.direction], _range(metric), ", ".join(how)]


def _other_network(metric: Metric) -> str | None:
    """What a metric has instead of the one whose name it extends: ``VGG16`` of `lpips_vgg_consecutive`."""
    question = re.fullmatch(r"`(\w+)` with (.+)\.", metric.question)
    if question is None or not {*question[1].split("_")} < {*metric.name.split("_")}:
        return None
    (other,) = (one for one in METRICS if one.name == question[1])
    return question[2] if other.settings == metric.settings else None


def _joined(rows: Sequence[list[str]]) -> list[list[str]]:
    """The rows, those that are the same with one other network in one row."""
    found: dict[str, list[str]] = {}
    for row in rows:
        key = row[1] if row[1].startswith("The same with") else row[0]
        if first := found.get(key):
            first[0] += f", {row[0]}"
            first[4] += f", {row[4]}" if row[4] not in first[4] else ""
        else:
            found[key] = row
    return [*found.values()]


def _unmeasurable(metrics: Sequence[Metric]) -> Iterator[str]:
    """A sentence for each reason why clips of this section's metrics cannot be measured."""
    reasons: dict[str, list[str]] = {}
    for metric in metrics:
        if metric.unable != Metric.unable and not _other_network(metric):
            reasons.setdefault(metric.unable, []).append(f"`{metric.name}`")
    for reason, names in reasons.items():
        of = "These metrics cannot" if len(names) == len(metrics) else f"{_listed(names)} cannot"
        yield f"{of} measure clips if {reason}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + [names[-1]])


def _prose(module: str) -> str:
    """A module's docstring without what its protocol or the shared notes repeat."""
    paragraphs = inspect.cleandoc(resolve(f"{module}:__doc__")).split("\n\n")
    return "\n\n".join(_unrepeated(one) for one in paragraphs if not one.startswith(REPEATED))


def _unrepeated(paragraph: str) -> str:
    """A paragraph or list without the sentences that the shared notes state; where one was, lines are filled again."""
    return "\n".join(map(_short, re.split(r"\n(?=- )", paragraph)))


def _short(paragraph: str) -> str:
    """A paragraph, or an item of a list, without these sentences."""
    joined = " ".join(paragraph.split())
    short = joined
    for sentence in NOTED:
        short = re.sub(sentence, "", short)
    indent = "  " if paragraph.startswith("- ") else ""
    filled = textwrap.fill(short, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return paragraph if short == joined else filled


def _protocol(kind: type) -> Mapping[str, Any]:
    """The values of a feature's protocol, which are known also where the user has not provided its weights."""
    held = next(vars(one)["protocol"] for one in kind.__mro__ if "protocol" in vars(one))
    protocol = getattr(held, "_protocol", held)
    values = dict(protocol.values())
    files = () if protocol is held else [one for one in ("weights", "head", "detector", "tokenizer") if one in values]
    return values | {name: f"{values[name]} (fetch)" for name in files}


def _feature(feature: str, cost: Cost | None) -> str:
    """A line: the feature, its cost, its input, and its protocol, or where that differs from its base's."""
    kind = resolve(FEATURES[feature])
    bases = {resolve(place): name for name, place in FEATURES.items()}
    base = next((one for one in kind.__mro__[1:] if one in bases), None) or _like(kind, bases)
    known = _protocol(base) if base else USUAL_VALUES
    values = {
        name: value
        for name, value in _protocol(kind).items()
        if name not in LEFT_OUT and value not in ("", known.get(name), "float32", "native")
    }
    same_input = base is not None and requires(bases[base]) == requires(feature)
    settings = "; ".join(f"{name} {_value(value)}" for name, value in values.items())
    same = f"as `{bases[base]}`" + (", but " if settings else "") if base else ""
    parts = ["" if same_input else INPUTS[requires(feature)], same]
    spent = f", {cost.words}" if cost else ""
    installed = f"; needs `{PACKAGES[feature][1]}`" if feature in PACKAGES else ""
    return f"- `{feature}`{spent}: {''.join(parts)}{settings}{installed}"


def _like(kind: type, listed: Iterable[type]) -> type | None:
    """The first class of a feature's module, where most values of their protocols are the same."""
    first = next(one for one in listed if one.__module__ == kind.__module__)
    one, other = _protocol(first), _protocol(kind)
    same = sum(one.get(name) == value for name, value in other.items())
    return first if first is not kind and one.keys() == other.keys() and 2 * same > len(other) else None


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(one)}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _range(metric: Metric) -> str:
    least, most = metric.bounds
    span = "any" if least is None else f"≥ {least:g}" if most is None else f"{least:g} to {most:g}"
    return f"{span} {metric.unit}".rstrip()


def _summary(function: Any) -> str:
    """A function's docstring up to its arguments and errors, in one line."""
    return " ".join(
        re.split(r"^(?:Args|Raises|Returns):", inspect.getdoc(function) or "", flags=re.MULTILINE)[0].split()
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, without a last column that is empty."""
    width = len(head) if any(row[-1] for row in rows) else len(head) - 1
    lines = [line[:width] for line in [head, *rows]]
    written = [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
    return "\n".join([written[0], f"|{'-|' * width}", *written[1:]])


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=FEATURES, default=[*FEATURES], help="Features to measure.")
    found = known_costs() | costs(parser.parse_args().only)
    lines = [f"{name},{found[name].milliseconds:.3g},{found[name].clip}\n" for name in FEATURES if name in found]
    COSTS.write_text("feature,milliseconds,clip\n" + "".join(lines))
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
