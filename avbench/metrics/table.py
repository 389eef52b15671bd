"""Lists every metric; adding one takes a function of arrays and a row here.

A metric's function sees arrays and nothing else, in one of two ways:

- Without a `column` it gets the columns of its feature, and of a second one where it has one `beside`,
  ``name → [clips, ...]``, and returns ``[clips]``; NaN marks a clip that this metric cannot measure. Values of unlike
  lengths, such as times of events, come as an array of arrays.
- With a `column`, the name of an embedding, it gets that column of the run and of the reference, ``[clips, d]`` each,
  and `settings` as arguments. It returns one number (a distance), or, where `per_clip`, ``[clips]``.

Either raises NotMeasurable with a sentence. A distance may name a `pooled` class as well, which makes the thousand
permutations of its null fast, and the test of two models where it has an `influence` (see uncertainty.py); and a
function of `moments` for references that are too large to keep whole. Without the first its function is called a
thousand times, without the second such references are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from avbench.core import Direction


@dataclass(frozen=True)
class Metric:
    """A row of the table."""

    name: str
    feature: str
    """Id in FEATURES."""
    function: str
    """``module:function``."""
    direction: Direction
    unit: str
    question: str
    per_clip: bool = True
    bounds: tuple[float | None, float | None] = (0.0, None)
    """The least and the most it can be; None where there is no such number."""
    unable: str = "its values are missing"
    """What is wrong with the clips for which a per-clip function gives NaN."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What decides the number besides the feature's protocol; stored with it."""
    column: str = ""
    """The embedding that is compared with the reference's."""
    reference_column: str = ""
    """The reference's, where it is another one."""
    pooled: str = ""
    """``module:class``."""
    moments: str = ""
    """``module:function``."""
    beside: str = ""
    """A second feature, whose columns the function gets as well."""
    goes_with_motion: bool = False
    """Whether it is easily good where little moves: then it is shown over the motion amount as well."""
    usual: bool = True
    """Whether it is computed where no metric is named."""
    least_clips: int = 0
    """Of a distance: the fewest clips, on either side, of which its value is shown; see docs/validity.md for why."""

    def too_few(self, clips: int, reference_clips: int | None = None) -> str | None:
        """The sentence that a value rests on too few clips of the run or of the reference; None where they suffice."""
        shown = self.name.upper() if len(self.name) == 3 else self.name  # FVD, KVD, FAD and KAD are acronyms
        if clips < self.least_clips:
            return f"n = {clips}: too few for {shown}"
        if reference_clips is not None and reference_clips < self.least_clips:
            return f"n = {reference_clips} in the reference: too few for {shown}"
        return None


_DISTANCE = "avbench.metrics.distance"
_SHARE, _ANY, _POSITIVE = (0.0, 1.0), (None, None), (0.0, None)
_LEAST_CLIPS = 24
"""Of a distance between sets of embeddings. In the permutation test at 12 clips FVD tells one toy subset's clips from
another's in a quarter of draws, at 24 in half of them, and its value varies by 12 % from draw to draw. Papers use 2,048
and more, because the value itself falls with n; here it always stands beside its null at the same n."""
_LEAST_NUMBERS = 12
"""Of a distance between sets of single numbers, which have one dimension instead of hundreds."""


def _distance(name: str, feature: str, function: str, pooled: str, question: str, **options: Any) -> Metric:
    options = {"column": "logits", "least_clips": _LEAST_CLIPS, **options}
    function, pooled = f"{_DISTANCE}:{function}", f"{_DISTANCE}:{pooled}"
    return Metric(name, feature, function, Direction.LOWER, "", question, per_clip=False, pooled=pooled, **options)


def _frechet(name: str, feature: str, question: str, *, ddof: int = 1, epsilon: float = 0.0, **options: Any) -> Metric:
    options |= {"settings": {"ddof": ddof, "epsilon": epsilon}, "moments": f"{_DISTANCE}:frechet_of_moments"}
    return _distance(name, feature, "frechet_distance", "Frechet", question, **options)


def _kernel(name: str, feature: str, question: str, *, degree: int = 3, coef0: float = 1.0, **options: Any) -> Metric:
    options |= {"settings": {"degree": degree, "coef0": coef0}, "bounds": _ANY}
    return _distance(name, feature, "kernel_distance", "Kernel", question, **options)


def _share(measure: str, k: int, question: str) -> Metric:
    return Metric(
        measure,
        "i3d-k400",
        f"{_DISTANCE}:neighbour_share",
        Direction.HIGHER,
        "",
        question,
        per_clip=False,
        bounds=_POSITIVE if measure == "density" else _SHARE,
        settings={"measure": measure, "k": k},
        column="logits",
        pooled=f"{_DISTANCE}:Neighbours",
        usual=False,
        least_clips=_LEAST_CLIPS,
    )


def _lpips(net: str, meaning: str, question: str, *, usual: bool = False) -> Metric:
    feature = f"lpips-{net}" if meaning == "consecutive" else f"lpips-{net}-{meaning}"
    return Metric(
        f"lpips_{meaning}" if net == "alex" else f"lpips_{net}_{meaning}",
        feature,
        f"avbench.metrics.perceptual:lpips_{meaning}",
        Direction.LOWER if meaning == "reference" else Direction.BAND,
        "LPIPS",
        question,
        goes_with_motion=meaning == "consecutive",
        usual=usual,
    )


_Row = tuple[str, Direction, str, tuple[float | None, float | None], str]
"""Name, direction, unit, bounds, question."""
_FROZEN = "nothing in them moves, and a still clip would win this"
_UNMATCHED = "they have no onset, or no abrupt change of motion"


def _on_request(feature: str, module: str, *rows: _Row, **options: Any) -> list[Metric]:
    """Metrics of one feature, each by the function of its name."""
    return [
        Metric(
            name,
            feature,
            f"avbench.metrics.{module}:{name}",
            direction,
            unit,
            question,
            **{"bounds": bounds, "usual": False, **options},
        )
        for name, direction, unit, bounds, question in rows
    ]


_LISTED: tuple[Metric, ...] = (
    _frechet("fvd", "i3d-k400", "How far is the distribution of Kinetics I3D logits from the reference's?"),
    _kernel(
        "kvd",
        "i3d-k400",
        "The same by a kernel (KID's): unbiased for independent clips, and more sensitive at small n.",
    ),
    _frechet(
        "motion_frechet",
        "flow-dis",
        "How far is the distribution of which way things move, and turn, where and when? Blind to looks.",
        column="motion_histogram",
    ),
    _lpips(
        "alex",
        "consecutive",
        "How much does a frame differ from the next to the eye? The reference's amount is right.",
        usual=True,
    ),
    Metric(
        "warping_error",
        "flow-dis",
        "avbench.metrics.motion:warping_error",
        Direction.BAND,
        "RGB²",
        "Where things move, does the next frame, warped back along the flow, look the same, as nearly as in reality?",
        unable="nothing in them moves, and a still clip has no warping error worth the name",
        goes_with_motion=True,
    ),
    Metric(
        "motion_amount",
        "flow-dis",
        "avbench.metrics.motion:motion_amount",
        Direction.BAND,
        "diagonals/s",
        "How fast do the moving parts move? The reference's amount is right.",
    ),
    Metric(
        "event_rate",
        "flow-dis",
        "avbench.metrics.motion:event_rate",
        Direction.BAND,
        "1/s",
        "How often does motion change abruptly, as in a blow? A proxy of contact. The reference's amount is right.",
        unable="they are too short to find an abrupt change of motion",
    ),
    Metric(
        "sync_excess",
        "flow-dis",
        "avbench.metrics.sync:sync_excess",
        Direction.HIGHER,
        "",
        "Do abrupt changes of motion and onsets of sound fall together more than they would by chance, which is 0?",
        bounds=(-1.0, 1.0),
        unable=_UNMATCHED,
        beside="onsets",
    ),
    Metric(
        "onset_rate",
        "onsets",
        "avbench.metrics.sound:onset_rate",
        Direction.BAND,
        "1/s",
        "How many sounds begin a second? The reference's amount is right.",
    ),
    _frechet(
        "fad",
        "musicnn",
        "How far is the distribution of what the sounds are like, to a network that tags music, from the reference's?",
        column="embedding",
    ),
    # From here on: computed where they are asked for.
    Metric(
        "motion_amount_distance",
        "flow-dis",
        "avbench.metrics.motion:motion_amount_distance",
        Direction.LOWER,
        "diagonals/s",
        "How far are the clips' amounts of motion from the reference's, as a distribution?",
        per_clip=False,
        column="motion_amount",
        usual=False,
        least_clips=_LEAST_NUMBERS,
    ),
    *_on_request(
        "flow-dis",
        "motion",
        (
            "flow_consistency",
            Direction.BAND,
            "share",
            _SHARE,
            "Where things move, does the flow back lead to where they came from?",
        ),
        ("acceleration", Direction.BAND, "diagonals/s²", _POSITIVE, "How much does motion change on its way?"),
        unable=_FROZEN,
        goes_with_motion=True,
    ),
    *_on_request(
        "flow-dis",
        "motion",
        (
            "still_flicker",
            Direction.BAND,
            "grey levels",
            (0.0, 255.0),
            "How much does what does not move change its brightness?",
        ),
        unable=f"{_FROZEN}, or no place is still",
        goes_with_motion=True,
    ),
    *_on_request(
        "flow-dis",
        "sync",
        ("sync_agreement", Direction.HIGHER, "share", _SHARE, "`sync_excess` with what chance gives left in."),
        ("sync_p", Direction.LOWER, "share", _SHARE, "By how many offsets of the sound is the agreement as good?"),
        ("sync_lag", Direction.NEITHER, "ms", (-500.0, 500.0), "How late is the sound? Negative: early. 0 is right."),
        ("sync_offset", Direction.LOWER, "ms", (0.0, 500.0), "`sync_lag` without its sign."),
        unable=_UNMATCHED,
        beside="onsets",
    ),
    *_on_request(
        "av-align",
        "sync",
        (
            "av_align",
            Direction.HIGHER,
            "",
            _SHARE,
            "How many onsets and peaks of motion fall together? As TempoTokens has it today.",
        ),
        (
            "av_align_2024",
            Direction.HIGHER,
            "",
            _POSITIVE,
            "The same as TempoTokens had it before February 2025: it can exceed 1.",
        ),
        ("av_align_javisbench", Direction.HIGHER, "", _POSITIVE, "The same as JavisBench has it: it can exceed 1."),
        unable="they have no onset, or no peak of motion",
    ),
    *_on_request(
        "synchformer",
        "sync",
        (
            "desync",
            Direction.LOWER,
            "s",
            (0.0, 2.0),
            "How far is the sound from the picture, early or late, to Synchformer? As av-benchmark has DeSync.",
        ),
        (
            "desync_lag",
            Direction.NEITHER,
            "s",
            (-2.0, 2.0),
            "How late is the sound, to Synchformer? Negative: early. 0 is right.",
        ),
    ),
    *_on_request(
        "levels",
        "sound",
        ("loudness", Direction.BAND, "LUFS", (-70.0, None), "How loud is the sound? By ITU-R BS.1770-4."),
        ("silence", Direction.BAND, "share", _SHARE, "How much of the sound is below -60 dBFS?"),
        ("clipping", Direction.BAND, "share", _SHARE, "How much of the sound is cut off at full scale?"),
        unable="they are silent",
    ),
    _kernel("kad", "musicnn", "`fad` by a kernel (KID's).", column="embedding", usual=False),
    _frechet("fad_vggish", "vggish", "`fad` with VGGish.", column="embedding", usual=False),
    _kernel("kad_vggish", "vggish", "`kad` with VGGish.", column="embedding", usual=False),
    _frechet("fad_panns", "panns-cnn14", "`fad` with PANNs' Cnn14.", column="embedding", usual=False),
    _kernel("kad_panns", "panns-cnn14", "`kad` with PANNs' Cnn14.", column="embedding", usual=False),
    _frechet("fad_clap", "clap", "`fad` with CLAP.", column="embedding", usual=False),
    _kernel("kad_clap", "clap", "`kad` with CLAP.", column="embedding", usual=False),
    *_on_request(
        "toy-physics",
        "toyworld",
        ("toy_contact", Direction.HIGHER, "share", _SHARE, "Toy subsets: does something touch where it has to?"),
        ("toy_avoidance", Direction.LOWER, "share", _SHARE, "Toy subsets: how many bounces touch nothing?"),
        ("toy_penetration", Direction.LOWER, "m", _POSITIVE, "Toy subsets: how deep do solid things overlap?"),
        ("toy_gravity_error", Direction.LOWER, "m/s²", _POSITIVE, "Toy subsets: how far is free fall from 9.81 m/s²?"),
        (
            "toy_energy_gain",
            Direction.LOWER,
            "m",
            _POSITIVE,
            "Toy subsets: how much energy comes from nothing, as a height?",
        ),
        ("toy_breaks", Direction.LOWER, "", _POSITIVE, "Toy subsets: how often does a body vanish or appear?"),
        (
            "toy_strange_colour",
            Direction.LOWER,
            "share",
            _SHARE,
            "Toy subsets: how much of the bodies has a wrong colour?",
        ),
        unable="no body of theirs can be followed as this asks",
    ),
    *_on_request(
        "raft-vbench",
        "vbench",
        (
            "vbench_dynamic_degree",
            Direction.BAND,
            "share",
            _SHARE,
            "How many clips does VBench call dynamic? The reference's share is right.",
        ),
    ),
    *_on_request(
        "vbench-flicker",
        "vbench",
        (
            "vbench_flickering",
            Direction.BAND,
            "",
            _SHARE,
            "VBench's temporal flickering, of every clip: how like the one before is a frame? A frozen clip has 1.",
        ),
        goes_with_motion=True,
    ),
    *_on_request(
        "vbench-flicker",
        "vbench",
        (
            "vbench_flickering_static",
            Direction.HIGHER,
            "",
            _SHARE,
            "VBench's temporal flickering, of the clips that pass its static filter.",
        ),
        unable="none of them passes VBench's static filter",
        beside="raft-vbench",
    ),
    *_on_request(
        "vbench-smoothness",
        "vbench",
        (
            "vbench_smoothness",
            Direction.BAND,
            "",
            _SHARE,
            "VBench's motion smoothness: does a frame lie halfway between its neighbours? A frozen clip is near 1.",
        ),
        goes_with_motion=True,
    ),
    *_on_request(
        "vbench-subject",
        "vbench",
        ("vbench_subject", Direction.BAND, "", _SHARE, "VBench's subject consistency (DINO). A frozen clip has 1."),
        goes_with_motion=True,
    ),
    *_on_request(
        "vbench-background",
        "vbench",
        (
            "vbench_background",
            Direction.BAND,
            "",
            _SHARE,
            "VBench's background consistency (CLIP ViT-B/32). A frozen clip has 1.",
        ),
        goes_with_motion=True,
    ),
    *_on_request(
        "text-alignment",
        "vbench",
        (
            "text_alignment",
            Direction.HIGHER,
            "",
            (-1.0, 1.0),
            "Do the frames show what the caption says? CLIP ViT-B/32's cosine, without CLIPScore's factor 2.5.",
        ),
    ),
    Metric(
        "near_copies",
        "i3d-k400",
        f"{_DISTANCE}:near_copies",
        Direction.LOWER,
        "share",
        "How many clips are as near to a real one as 1 % of real clips are to another? 1 % is what chance gives.",
        bounds=(0.0, 1.0),
        column="logits",
        usual=False,
    ),
    _share("precision", 3, "How many clips lie among the reference's?"),
    _share("recall", 3, "How many of the reference's clips lie among the model's?"),
    _share("density", 5, "How densely do the reference's clips lie around the model's? Real clips come to about 1."),
    _share("coverage", 5, "How many of the reference's clips have one of the model's near by?"),
    Metric(
        "fvd_infinity",
        "i3d-k400",
        f"{_DISTANCE}:frechet_infinity",
        Direction.LOWER,
        "",
        "What would FVD be at infinitely many clips? Refused below 2000, five a dimension.",
        per_clip=False,
        settings={"ddof": 1},
        column="logits",
        usual=False,
        least_clips=2000,
    ),
    _kernel("kvd_quadratic", "i3d-k400", "KVD with JEDi's kernel, unbiased.", degree=2, coef0=0.0, usual=False),
    _frechet(
        "fvd_stylegan_v",
        "i3d-stylegan-v",
        "FVD as StyleGAN-V's code has it.",
        reference_column="logits_random",
        ddof=0,
        usual=False,
    ),
    _frechet("fvd_cd_fvd", "i3d-cd-fvd", "FVD as cd-fvd has it.", ddof=0, usual=False),
    _frechet("fvd_fvd_comparison", "i3d-fvd-comparison", "FVD as the TensorFlow original has it.", usual=False),
    _frechet("fvd_common_metrics", "i3d-common-metrics", "FVD as common_metrics has it.", usual=False),
    _frechet(
        "fvd_asva",
        "i3d-asva",
        "FVD as ASVA has it: one window of a generated clip, three of a real one; so it has no null.",
        reference_column="logits_windows",
        usual=False,
    ),
    _frechet("fvd_fastvideo", "i3d-fastvideo", "FVD as FastVideo has it.", epsilon=1e-6, usual=False),
    _frechet("fvd_javisbench", "i3d-javisbench", "FVD as JavisBench has it, its range defect included.", usual=False),
    _frechet(
        "fvd_torchscript",
        "i3d-torchscript",
        "FVD as StyleGAN-V's code has it, with its own weights file.",
        reference_column="logits_random",
        ddof=0,
        usual=False,
    ),
    _frechet(
        "fvd_pretrained_400",
        "i3d-pretrained-400",
        "FVD as cd-fvd has it, with its own weights file.",
        ddof=0,
        usual=False,
    ),
    _frechet(
        "fvd_videomae",
        "videomae-g-ssv2",
        "Fréchet distance of VideoMAE features, as cd-fvd has it for arrays.",
        column="embedding",
        ddof=0,
        usual=False,
    ),
    _kernel(
        "kvd_vjepa2",
        "vjepa2",
        "Kernel distance of V-JEPA 2 features: JEDi's idea, unbiased.",
        column="embedding",
        degree=2,
        coef0=0.0,
        usual=False,
    ),
    _lpips("vgg", "consecutive", "`lpips_consecutive` with VGG16."),
    _lpips("squeeze", "consecutive", "`lpips_consecutive` with SqueezeNet."),
    _lpips("alex", "reference", "How far is a clip from the reference clip of its prompt, frame by frame?"),
    _lpips("vgg", "reference", "`lpips_reference` with VGG16."),
    _lpips("squeeze", "reference", "`lpips_reference` with SqueezeNet."),
    _lpips("alex", "seeds", "How unlike are a prompt's clips under other seeds? The reference's diversity is right."),
    _lpips("vgg", "seeds", "`lpips_seeds` with VGG16."),
    _lpips("squeeze", "seeds", "`lpips_seeds` with SqueezeNet."),
)

_ALSO_WITH_RAFT = ("warping_error", "motion_amount", "event_rate", "sync_excess", "flow_consistency", "acceleration")

METRICS: tuple[Metric, ...] = (
    *_LISTED,
    *(
        replace(
            metric,
            name=f"{metric.name}_raft",
            feature="flow-raft",
            question=f"`{metric.name}`, flow by RAFT.",
            usual=False,
        )
        for metric in _LISTED
        if metric.name in _ALSO_WITH_RAFT
    ),
)

FVD_PROTOCOLS: dict[str, str] = {
    "avbench": "fvd",
    "stylegan-v": "fvd_stylegan_v",
    "cd-fvd": "fvd_cd_fvd",
    "fvd-comparison": "fvd_fvd_comparison",
    "common-metrics": "fvd_common_metrics",
    "asva": "fvd_asva",
    "fastvideo": "fvd_fastvideo",
    "javisbench": "fvd_javisbench",
}
"""Whose FVD → the metric that computes it, on the same I3D weights."""
