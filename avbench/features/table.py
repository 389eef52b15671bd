"""Lists every feature: what stage 3 measures of one clip. Adding a feature takes one file and one row here.

A feature is a class that is built without arguments. Its class attribute `protocol` holds everything besides
the clip that decides its numbers, and is known without loading weights. Calling the feature on a clip returns one row
of named floats or float arrays, or raises NotMeasurable with a sentence that is shown in place of a value.

A feature that needs more than a clip names what it needs in its class attribute `requires`. One that needs sound has
the class attribute ``needs_sound = True``. One whose network can run on a GPU has ``on_gpu = True`` and is built as
``Feature(device=...)``; one whose network can also compute in bfloat16 has ``in_bfloat16 = True`` and is built as
``Feature(precision="bfloat16")``, with that value in its protocol's field `precision`. One that reads a clip's frames
in order, by slices or by indices along the first axis has ``streams = True``: the frames of a long clip are then
`StoredFrames`, which are decoded when it asks for them.

Other packages add features by the entry-point group ``avbench.features``: name → class.
"""

import dataclasses
import enum
import inspect
import typing
from collections.abc import Mapping

from avbench.core import Clip, InputError, Protocol, Value, first_line, nearest, resolve
from avbench.storage.plug_ins import Found, find

FEATURES: dict[str, str] = {
    "i3d-k400": "avbench.features.video.i3d:I3DLogits",
    "i3d-stylegan-v": "avbench.features.video.i3d.conventions:StyleGANV",
    "i3d-cd-fvd": "avbench.features.video.i3d.conventions:CDFVD",
    "i3d-fvd-comparison": "avbench.features.video.i3d.conventions:FVDComparison",
    "i3d-common-metrics": "avbench.features.video.i3d.conventions:CommonMetrics",
    "i3d-asva": "avbench.features.video.i3d.conventions:ASVA",
    "i3d-fastvideo": "avbench.features.video.i3d.conventions:FastVideo",
    "i3d-javisbench": "avbench.features.video.i3d.conventions:JavisBench",
    "i3d-torchscript": "avbench.features.video.i3d.user_weights:TorchScript",
    "i3d-pretrained-400": "avbench.features.video.i3d.user_weights:Pretrained400",
    "videomae-g-ssv2": "avbench.features.video.videomae:VideoMAE",
    "vjepa2": "avbench.features.video.vjepa2:VJEPA2",
    "dover": "avbench.features.video.dover:DOVER",
    "lpips-alex": "avbench.features.perceptual.lpips:ConsecutiveLPIPS",
    "lpips-vgg": "avbench.features.perceptual.lpips:VGGConsecutive",
    "lpips-squeeze": "avbench.features.perceptual.lpips:SqueezeConsecutive",
    "lpips-alex-reference": "avbench.features.perceptual.lpips:ReferenceLPIPS",
    "lpips-vgg-reference": "avbench.features.perceptual.lpips:VGGReference",
    "lpips-squeeze-reference": "avbench.features.perceptual.lpips:SqueezeReference",
    "lpips-alex-seeds": "avbench.features.perceptual.lpips:SeedsLPIPS",
    "lpips-vgg-seeds": "avbench.features.perceptual.lpips:VGGSeeds",
    "lpips-squeeze-seeds": "avbench.features.perceptual.lpips:SqueezeSeeds",
    "flow-dis": "avbench.features.flow:DISFlow",
    "flow-raft": "avbench.features.flow.raft:RAFTFlow",
    "onsets": "avbench.features.audio.onsets:Onsets",
    "levels": "avbench.features.audio.levels:Levels",
    "musicnn": "avbench.features.audio.musicnn:Musicnn",
    "vggish": "avbench.features.audio.networks:VGGish",
    "panns-cnn14": "avbench.features.audio.networks:PANNs",
    "clap": "avbench.features.audio.networks:CLAP",
    "clap-text-audio": "avbench.features.audio.text:TextAudio",
    "ms-clap-text-audio": "avbench.features.audio.ms_clap:MSCLAP",
    "audiobox": "avbench.features.audio.aesthetics:Audiobox",
    "pe-av": "avbench.features.audio.perception:AudioVideo",
    "pe-text-video": "avbench.features.audio.perception:TextVideo",
    "pe-text-audio": "avbench.features.audio.perception:TextAudio",
    "imagebind": "avbench.features.audio.imagebind:ImageBind",
    "whisper": "avbench.features.audio.speech:Speech",
    "av-align": "avbench.features.sync.av_align:AVAlign",
    "synchformer": "avbench.features.sync.synchformer:Synchformer",
    "syncnet": "avbench.features.sync.syncnet:SyncNet",
    "raft-vbench": "avbench.features.vbench.dynamic_degree:VBenchRAFT",
    "vbench-flicker": "avbench.features.vbench.pixels:Flicker",
    "vbench-smoothness": "avbench.features.vbench.smoothness:MotionSmoothness",
    "vbench-subject": "avbench.features.vbench.consistency:SubjectConsistency",
    "vbench-background": "avbench.features.vbench.consistency:BackgroundConsistency",
    "vbench-imaging": "avbench.features.vbench.quality:ImagingQuality",
    "vbench-aesthetic": "avbench.features.vbench.quality:AestheticQuality",
    "viclip": "avbench.features.vbench.viclip:ViCLIP",
    "text-alignment": "avbench.features.vbench.consistency:TextAlignment",
    "physics-judge": "avbench.features.judge.qwen:PhysicsJudge",
    "physics-judge-served": "avbench.features.judge.served:ServedJudge",
    "toy-physics": "avbench.features.toyworld:ToyPhysics",
}
"""Feature id → ``module:class``, imported when used."""


def plug_ins() -> Found:
    """The features of other packages."""
    return find("avbench.features", FEATURES)


def places() -> dict[str, str]:
    """Every feature, those of other packages last: id → where it lives."""
    return FEATURES | {name: one.place for name, one in plug_ins().usable.items()}


def feature_class(feature: str) -> "type[Feature]":
    """The class behind a feature id.

    Raises:
        InputError: there is none, or the package that adds it cannot be used.
    """
    if feature in FEATURES:
        return resolve(FEATURES[feature])
    found = plug_ins()
    if feature not in found.usable:
        msg = (
            found.problems.get(feature)
            or f"feature {feature!r} is unknown; {nearest(feature, places(), '`avbench list features`')}"
        )
        raise InputError(msg)
    plug_in = found.usable[feature]
    kind = plug_in.load(type)
    if wrong := _wrong_attribute(kind, feature):
        raise InputError(plug_in.unusable(wrong))
    return kind


def _wrong_attribute(kind: type, feature: str) -> str | None:
    """Say which attribute of another package's feature is wrong; None if all are right."""
    protocol, needed = getattr(kind, "protocol", None), getattr(kind, "requires", Requires.CLIP)
    if not isinstance(protocol, Protocol) or protocol.name != feature:
        found = f"has the name {protocol.name!r}" if isinstance(protocol, Protocol) else f"is {protocol!r:.80}"
        return (
            f"its `protocol` must be a Protocol whose name is {feature!r}, and it {found}; write "
            f"`protocol = Protocol({feature!r}, version=1)` with avbench.core.Protocol or a frozen dataclass that is a "
            "subclass of it"
        )
    if not isinstance(protocol.version, int) or isinstance(protocol.version, bool):
        return f"its `protocol` has the version {protocol.version!r}; it must be a whole number"
    fields = {one.name for one in dataclasses.fields(protocol)}
    for name, annotation in inspect.get_annotations(type(protocol)).items():
        if name not in fields and "ClassVar" not in str(annotation):
            return f"its `protocol` has {name}, which is no field: put @dataclass(frozen=True) on its class"
    try:
        _ = protocol.digest
    except (TypeError, ValueError) as error:
        return f"its `protocol` cannot be stored as JSON: {first_line(error)}"
    if needed not in [*Requires]:
        return f"its `requires` is {needed!r}; {nearest(str(needed), Requires)}"
    return None


def package_of(feature: str) -> str | None:
    """Name and version of the package that adds a feature; None of avbench's own."""
    return None if feature in FEATURES else plug_ins().usable[feature].package


NO_SOUND = "the clip has no sound"
"""Why a feature that needs sound has no values of a clip."""


class Requires(enum.StrEnum):
    """The arguments that a feature is called with."""

    CLIP = "clip"
    """A clip. It is the default of a class without `requires`."""
    PROMPT = "prompt"
    """A clip and its Prompt."""
    REFERENCE_CLIP = "reference_clip"
    """A clip and the reference clip of its prompt."""
    SEEDS = "seeds"
    """A list of all clips of a prompt; the feature returns one row for each of them, in their order."""


class Feature(typing.Protocol):
    """The interface that measure.py expects of a feature."""

    protocol: Protocol
    requires: Requires
    """Requires.CLIP where a class has none."""
    reads_captions: bool
    """Whether it compares a clip with its video caption; False where a class has none."""
    needs_sound: bool
    """Whether it measures only clips with a sound track, and is not built for others; False where a class has none."""
    on_gpu: bool
    """Whether it takes the argument `device` and runs there; False where a class has none."""
    in_bfloat16: bool
    """Whether it takes the argument `precision`; False where a class has none."""
    streams: bool
    """Whether it takes clips whose frames are `StoredFrames`; False where a class has none: it gets arrays."""

    def __call__(self, clip: Clip) -> Mapping[str, Value]:
        """Measure one clip. Raises NotMeasurable if the clip cannot be measured."""
        ...
