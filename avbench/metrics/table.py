"""Lists every metric. Adding one takes a function of arrays and a row here.

A metric that is a column of its feature names it and needs no function. Others have a function that gets arrays and
nothing else, in one of two ways:

- Without a `column` it gets the columns of its feature, ``name → [clips, ...]``, and those of a second feature if it
  has one `beside`. It returns ``[clips]``; NaN marks a clip that this metric cannot measure. Values whose length
  differs between clips, such as times of events, come as an array of arrays.
- With a `column`, the name of an embedding, it gets that column of the run and of the reference, ``[clips, d]`` each,
  and `settings` as arguments. It returns one number (a distance), or, if `per_clip`, ``[clips]``.

Either raises NotMeasurable with a sentence. A distance may also name a `pooled` class, which makes the thousand
permutations of its null fast and, with an `influence`, the test of two models (see uncertainty.py). It may name a
function of `moments`, for references that are too large to keep whole. Without a `pooled` class its function is called
a thousand times; without `moments` such references are refused.

Other packages add metrics by the entry-point group ``avbench.metrics``: name → `Metric`.
"""

import functools
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from avbench.core import Columns, Direction, InputError, digest, first_line, nearest, resolve
from avbench.features.table import feature_class
from avbench.metrics.sync_settings import BESIDE_OTHERS, LAGGED, MATCHED, SHIFTED
from avbench.storage.plug_ins import PlugIn, find, importing


@dataclass(frozen=True)
class Metric:
    """A row of the table."""

    name: str
    feature: str
    """Feature id in FEATURES."""
    function: str
    """``module:function``, or the name of a column of the feature whose numbers are the values as they are."""
    direction: Direction
    unit: str
    question: str
    per_clip: bool = True
    bounds: tuple[float | None, float | None] = (0.0, None)
    """The smallest and the largest possible value; None if there is no such bound."""
    unable: str = "its values are missing"
    """What is wrong with clips for which a per-clip function returns NaN; an error continues with it after a colon."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that decide the number besides the feature's protocol; stored with it."""
    column: str = ""
    """The run's embedding that is compared with the reference's."""
    reference_column: str = ""
    """The reference's embedding, if its name differs."""
    pooled: str = ""
    """``module:class`` of the fast form for permutations."""
    moments: str = ""
    """``module:function`` for references with moments only."""
    beside: str = ""
    """A second feature, whose columns the function also gets."""
    goes_with_motion: bool = False
    """Whether little motion easily gives a good value; if so, it is also plotted against the motion amount."""
    usual: bool = True
    """Whether it is computed if no metric is named."""
    least_clips: int = 0
    """For a distance: the fewest clips, on either side, for which its value is shown; see docs/validity.md."""
    package: str = ""
    """Name and version of the package that adds it, set by avbench and stored with its scores; empty for avbench's
    own."""

    @property
    def unit_of_differences(self) -> str:
        """LU where values are in LUFS, which are relative to full scale, and dB where they are in dBFS."""
        return {"LUFS": "LU", "dBFS": "dB"}.get(self.unit, self.unit)

    def too_few(self, clips: int, reference_clips: int | None = None) -> str | None:
        """The sentence that the run or the reference has too few clips for this metric; None if both have enough."""
        shown = self.name.upper() if len(self.name) == 3 else self.name  # FVD, KVD, FAD and KAD are acronyms
        if clips < self.least_clips:
            return f"n = {clips}: too few for {shown}"
        if reference_clips is not None and reference_clips < self.least_clips:
            return f"n = {reference_clips} in the reference: too few for {shown}"
        return None

    def of_clips(self, columns: Columns) -> np.ndarray:
        """The value of each clip, ``[clips]``; NaN where it cannot measure one. For a metric without a `column`.

        Raises:
            ValueError: the function does not return one number per clip, or the feature has no such column of numbers.
            NotMeasurable: it cannot measure any clip.
        """
        if ":" in self.function:
            return self.one_per_clip(resolve(self.function)(columns), len(next(iter(columns.values()))))
        self.require_column(self.function, columns)
        column = columns[self.function]
        if column.ndim != 1 or column.dtype == object:
            shapes = " and ".join([*dict.fromkeys(str(np.shape(one)) for one in column)][:2])
            msg = (
                f"the column {self.function!r} of {self.feature} has arrays of shape {shapes}; a metric without a "
                "function needs one number per clip"
            )
            raise ValueError(msg)
        return np.asarray(column, dtype=np.float64)

    def require_column(self, name: str, columns: Columns) -> None:
        """Raise ValueError if what its feature measured has no column of this name."""
        if name not in columns:
            msg = f"{self.feature} has no column {name!r}; {nearest(name, columns)}"
            raise ValueError(msg)

    def one_per_clip(self, returned: Any, clips: int) -> np.ndarray:
        """What the function returned, as float64 ``[clips]``, NaN where it is masked.

        Raises ValueError unless it is one number per clip, none of them infinite.
        """
        values = np.asarray(returned)
        if values.shape != (clips,) or values.dtype.kind not in "biuf":
            what = f"an array of shape {values.shape} and type {values.dtype}" if values.ndim else f"{values}"
            msg = f"{self.function} returned {what}; it must return an array of shape ({clips},), one number per clip"
            raise ValueError(msg)
        numbers = np.where(np.ma.getmaskarray(returned), np.nan, values.astype(np.float64))
        if endless := np.count_nonzero(np.isinf(numbers)):
            msg = f"{self.function} returned infinity for {endless} of {clips} clips; NaN marks what it cannot measure"
            raise ValueError(msg)
        return numbers


_SHARE, _ANY, _POSITIVE = (0.0, 1.0), (None, None), (0.0, None)
LEAST_CLIPS = 24
"""For distances between sets of embeddings. A permutation test of FVD distinguishes 12 clips of one toy subset from
another in 27 % of draws, 24 in 34 % and 48 in 74 %, and the other way round in 5, 4 and 21 % (docs/validity.md). At 24
clips its value varies by 12 % from draw to draw. Papers use 2,048 clips
and more, because the value itself falls with n; here it is shown with its null at the same n, or with the reason why
there is none."""
_LEAST_NUMBERS = 12
"""For distances between sets of single numbers, which have one dimension instead of hundreds."""


def _distance(name: str, feature: str, function: str, pooled: str, question: str, **options: Any) -> Metric:
    options = {"column": "logits", "least_clips": LEAST_CLIPS, **options}
    function, pooled = f"avbench.metrics.{function}", f"avbench.metrics.{pooled}"
    return Metric(name, feature, function, Direction.LOWER, "", question, per_clip=False, pooled=pooled, **options)


def _frechet(name: str, feature: str, question: str, *, ddof: int = 1, epsilon: float = 0.0, **options: Any) -> Metric:
    options |= {"settings": {"ddof": ddof, "epsilon": epsilon}, "moments": "avbench.metrics.frechet:frechet_of_moments"}
    return _distance(name, feature, "frechet:frechet_distance", "frechet:Frechet", question, **options)


def _kernel(name: str, feature: str, question: str, *, degree: int = 3, coef0: float = 1.0, **options: Any) -> Metric:
    options |= {"settings": {"degree": degree, "coef0": coef0}, "bounds": _ANY}
    return _distance(name, feature, "kernel:kernel_distance", "kernel:Kernel", question, **options)


def _share(measure: str, k: int, question: str) -> Metric:
    return Metric(
        measure,
        "i3d-k400",
        "avbench.metrics.neighbours:neighbour_share",
        Direction.HIGHER,
        "",
        question,
        per_clip=False,
        bounds=_POSITIVE if measure == "density" else _SHARE,
        settings={"measure": measure, "k": k},
        column="logits",
        pooled="avbench.metrics.neighbours:Neighbours",
        least_clips=LEAST_CLIPS,
    )


def _lpips(net: str, meaning: str, question: str) -> Metric:
    feature = f"lpips-{net}" if meaning == "consecutive" else f"lpips-{net}-{meaning}"
    return Metric(
        f"lpips_{meaning}" if net == "alex" else f"lpips_{net}_{meaning}",
        feature,
        "mean",
        Direction.LOWER if meaning == "reference" else Direction.BAND,
        "LPIPS",
        question,
        goes_with_motion=meaning == "consecutive",
    )


_Row = tuple[str, Direction, str, tuple[float | None, float | None], str]
"""Name, direction, unit, bounds, question."""
_FROZEN = "no motion is found in them, and a frozen clip would have the best value"
_UNMATCHED = "they have no onset, or no abrupt change of motion"
_UNMATCHED_INSIDE = f"from the third frame to the third last {_UNMATCHED}"


def _of_feature(feature: str, how: str | Sequence[str], *rows: _Row, **options: Any) -> list[Metric]:
    """Metrics of one feature. `how` is a module with a function of each name, or the `Metric.function` of each."""
    functions = [f"avbench.metrics.{how}:{name}" for name, *_ in rows] if isinstance(how, str) else how
    return [
        Metric(name, feature, function, direction, unit, question, bounds=bounds, **options)
        for function, (name, direction, unit, bounds, question) in zip(functions, rows, strict=True)
    ]


def _similarity(name: str, feature: str, question: str, chance: str, excess: str) -> list[Metric]:
    """The cosine of two vectors of a clip, and the same less its chance level, by the function `excess` of sound.py."""
    beyond = f"`{name}` less its chance level: {chance}."
    return _of_feature(
        feature,
        ("similarity", f"avbench.metrics.sound:{excess}"),
        (name, Direction.HIGHER, "", (-1.0, 1.0), question),
        (f"{name}_excess", Direction.HIGHER, "", (-2.0, 2.0), beyond),
    )


_DEFAULT: tuple[Metric, ...] = (
    _frechet("fvd", "i3d-k400", "Fréchet distance of video features (logits of I3D, trained on Kinetics)."),
    _kernel(
        "kvd",
        "i3d-k400",
        "Kernel distance of the same features as `fvd`, unbiased.",
    ),
    _frechet(
        "motion_frechet",
        "flow-dis",
        "Fréchet distance of histograms of motion by direction, place and time. It ignores appearance.",
        column="motion_histogram",
    ),
    _lpips(
        "alex",
        "consecutive",
        "Perceptual change from one frame to the next.",
    ),
    Metric(
        "warping_error",
        "flow-dis",
        "avbench.metrics.motion:warping_error",
        Direction.BAND,
        "RGB²",
        "Squared difference of R, G and B in 0 to 1, summed, that remains after each frame is warped along the flow to "
        "the next: mean over what both frames show, then over pairs of frames.",
        unable="no motion is found in them (the error of a frozen clip has no meaning), or no two frames in a row show "
        "the same place",
        goes_with_motion=True,
    ),
    Metric(
        "motion_amount",
        "flow-dis",
        "motion_amount",
        Direction.BAND,
        "diagonals/s",
        "Speed of the moving parts: mean of the fastest 5 % of pixels of a pair of frames, then mean over pairs.",
    ),
    Metric(
        "event_rate",
        "flow-dis",
        "avbench.metrics.motion:event_rate",
        Direction.BAND,
        "1/s",
        "Abrupt changes of motion, a proxy of contact, per second of the time in which they can be found: from the "
        "third frame to the third last.",
        unable="they are too short to find an abrupt change of motion",
    ),
    Metric(
        "sync_excess",
        "flow-dis",
        "avbench.metrics.sync:sync_excess",
        Direction.HIGHER,
        "",
        "How often abrupt changes of motion coincide with sound onsets: `sync_agreement` less its mean under cyclic "
        "shifts of the sound, evenly spaced from 0.2 s on, that leave an onset between the third frame and the third "
        "last. Chance is 0.",
        bounds=(-1.0, 1.0),
        unable=_UNMATCHED_INSIDE,
        settings=SHIFTED,
        beside="onsets",
    ),
    Metric(
        "onset_rate",
        "onsets",
        "onset_rate",
        Direction.BAND,
        "1/s",
        "Sound onsets per second of sound.",
    ),
    _frechet(
        "fad",
        "musicnn",
        "Fréchet distance of audio features (musicnn, a network that tags music).",
        column="embedding",
    ),
)

_ON_REQUEST: tuple[Metric, ...] = (
    Metric(
        "motion_amount_distance",
        "flow-dis",
        "avbench.metrics.motion:motion_amount_distance",
        Direction.LOWER,
        "diagonals/s",
        "Distance between the distributions of motion amounts of the run's and the reference's clips.",
        per_clip=False,
        column="motion_amount",
        least_clips=_LEAST_NUMBERS,
    ),
    *_of_feature(
        "flow-dis",
        "motion",
        (
            "flow_consistency",
            Direction.BAND,
            "share",
            _SHARE,
            "Share of the moving pixels that the backward flow leads back to their start.",
        ),
        ("acceleration", Direction.BAND, "diagonals/s²", _POSITIVE, "Mean change of velocity of what moves."),
        unable=_FROZEN,
        goes_with_motion=True,
    ),
    Metric(
        "still_flicker",
        "flow-dis",
        "avbench.metrics.motion:still_flicker",
        Direction.BAND,
        "grey levels",
        "Change of brightness of the parts that do not move: median over their pixels, then mean over pairs of frames.",
        bounds=(0.0, 255.0),
        unable="neither motion nor flicker is found in them (a frozen clip would have the best value), or no place is "
        "still",
        goes_with_motion=True,
    ),
    Metric(
        "sync_agreement",
        "flow-dis",
        "avbench.metrics.sync:sync_agreement",
        Direction.HIGHER,
        "share",
        "The most matches of abrupt changes of motion with sound onsets, each at most once and within 0.1 s, over "
        "the mean of their numbers. Chance is not subtracted.",
        bounds=_SHARE,
        unable=_UNMATCHED_INSIDE,
        settings=MATCHED,
        beside="onsets",
    ),
    Metric(
        "sync_p",
        "flow-dis",
        "avbench.metrics.sync:sync_p",
        Direction.LOWER,
        "share",
        "Share of the shifts of `sync_excess`, and of no shift, at which the sound agrees at least as well.",
        bounds=_SHARE,
        unable=_UNMATCHED_INSIDE,
        settings=SHIFTED,
        beside="onsets",
    ),
    *_of_feature(
        "flow-dis",
        "sync",
        ("sync_lag", Direction.NEITHER, "ms", (-500.0, 500.0), "How late the sound is; negative if early. 0 is best."),
        ("sync_offset", Direction.LOWER, "ms", (0.0, 500.0), "`sync_lag` without its sign."),
        unable=f"{_UNMATCHED}, or none within 0.6 s of each other",
        settings=LAGGED,
        beside="onsets",
    ),
    *_of_feature(
        "av-align",
        "sync",
        (
            "av_align",
            Direction.HIGHER,
            "",
            _SHARE,
            "Agreement of onsets with peaks of motion, as TempoTokens computes it today.",
        ),
        (
            "av_align_2024",
            Direction.HIGHER,
            "",
            _POSITIVE,
            "`av_align` as TempoTokens computed it before February 2025; it can exceed 1.",
        ),
        ("av_align_javisbench", Direction.HIGHER, "", _POSITIVE, "`av_align` as in JavisBench; it can exceed 1."),
        unable="they have no onset, or no peak of motion",
    ),
    Metric(
        "av_align_excess",
        "av-align",
        "avbench.metrics.sync:av_align_excess",
        Direction.HIGHER,
        "",
        "`av_align` less its chance level: the picture's mean agreement with the sounds of 20 other clips.",
        bounds=(-1.0, 1.0),
        unable="they have no onset, or no peak of motion",
        settings=BESIDE_OTHERS,
    ),
    *_of_feature(
        "synchformer",
        "sync",
        (
            "desync",
            Direction.LOWER,
            "s",
            (0.0, 2.0),
            "Size of the time offset between sound and picture by Synchformer: av-benchmark's DeSync.",
        ),
        (
            "desync_lag",
            Direction.NEITHER,
            "s",
            (-2.0, 2.0),
            "How late the sound is, by Synchformer; negative if early. 0 is best.",
        ),
    ),
    Metric(
        "loudness",
        "levels",
        "avbench.metrics.sound:loudness",
        Direction.BAND,
        "LUFS",
        "Integrated loudness by ITU-R BS.1770-4.",
        bounds=(-70.0, None),
        unable="they are silent, or have more than 2 channels, less than 0.4 s of sound or a sample rate below 8 kHz",
    ),
    *_of_feature(
        "levels",
        ("silent_share", "clipped_share"),
        (
            "silence",
            Direction.BAND,
            "share",
            _SHARE,
            "Share of the windows of 20 ms with a mean power over all channels below -60 dBFS.",
        ),
        (
            "clipping",
            Direction.BAND,
            "share",
            _SHARE,
            "Share of the samples that are cut off at full scale: at least three in a row.",
        ),
    ),
    _kernel("kad", "musicnn", "Kernel distance of the same features as `fad`.", column="embedding"),
    _frechet(
        "fad_vggish",
        "vggish",
        "`fad` with VGGish. A clip counts once; in papers each 0.96 s of it counts.",
        column="embedding",
    ),
    _kernel("kad_vggish", "vggish", "`kad` with VGGish.", column="embedding"),
    _frechet("fad_panns", "panns-cnn14", "`fad` with PANNs' Cnn14.", column="embedding"),
    _kernel("kad_panns", "panns-cnn14", "`kad` with PANNs' Cnn14.", column="embedding"),
    _frechet("fad_clap", "clap", "`fad` with CLAP.", column="embedding"),
    _kernel("kad_clap", "clap", "`kad` with CLAP.", column="embedding"),
    *_of_feature(
        "toy-physics",
        "toyworld",
        ("toy_contact", Direction.HIGHER, "share", _SHARE, "Toy subsets: share of clips with a contact that is due."),
        ("toy_avoidance", Direction.LOWER, "share", _SHARE, "Toy subsets: share of bounces at which nothing touches."),
        ("toy_penetration", Direction.LOWER, "m", _POSITIVE, "Toy subsets: deepest overlap of solid things."),
        ("toy_gravity_error", Direction.LOWER, "m/s²", _POSITIVE, "Toy subsets: error of free fall from 9.81 m/s²."),
        (
            "toy_energy_gain",
            Direction.LOWER,
            "m",
            _POSITIVE,
            "Toy subsets: largest rise of energy without a cause, as a height.",
        ),
        unable="what is judged does not happen in them, or no body can be followed well enough",
    ),
    *_of_feature(
        "toy-physics",
        ("breaks", "strange_share"),
        ("toy_breaks", Direction.LOWER, "", _POSITIVE, "Toy subsets: times that a body vanishes or appears."),
        (
            "toy_strange_colour",
            Direction.LOWER,
            "share",
            _SHARE,
            "Toy subsets: share of the coloured area with a wrong colour.",
        ),
    ),
    Metric(
        "vbench_dynamic_degree",
        "raft-vbench",
        "dynamic",
        Direction.BAND,
        "share",
        "Share of clips that VBench calls dynamic.",
        bounds=_SHARE,
    ),
    Metric(
        "vbench_flickering",
        "vbench-flicker",
        "flickering",
        Direction.BAND,
        "",
        "VBench's temporal flickering, of every clip: similarity of consecutive frames. A frozen clip has 1.",
        bounds=_SHARE,
        goes_with_motion=True,
    ),
    Metric(
        "vbench_flickering_static",
        "vbench-flicker",
        "avbench.metrics.vbench:vbench_flickering_static",
        Direction.HIGHER,
        "",
        "VBench's temporal flickering, of the clips that pass its static filter.",
        bounds=_SHARE,
        unable="none of them passes VBench's static filter",
        beside="raft-vbench",
    ),
    Metric(
        "vbench_smoothness",
        "vbench-smoothness",
        "smoothness",
        Direction.BAND,
        "",
        "VBench's motion smoothness: similarity of frames to an interpolation. A frozen clip is near 1.",
        bounds=_SHARE,
        goes_with_motion=True,
    ),
    Metric(
        "vbench_subject",
        "vbench-subject",
        "consistency",
        Direction.BAND,
        "",
        "VBench's subject consistency (DINO). A frozen clip has 1.",
        bounds=_SHARE,
        goes_with_motion=True,
    ),
    Metric(
        "vbench_background",
        "vbench-background",
        "consistency",
        Direction.BAND,
        "",
        "VBench's background consistency (CLIP ViT-B/32). A frozen clip has 1.",
        bounds=_SHARE,
        goes_with_motion=True,
    ),
    Metric(
        "imaging_quality",
        "vbench-imaging",
        "quality",
        Direction.HIGHER,
        "",
        "VBench's imaging quality: few distortions in single frames, by MUSIQ; about 0 to 1.",
        bounds=_ANY,
    ),
    Metric(
        "aesthetic_quality",
        "vbench-aesthetic",
        "quality",
        Direction.HIGHER,
        "",
        "VBench's aesthetic quality: beauty of single frames, by LAION's predictor on CLIP; about 0 to 1.",
        bounds=_ANY,
    ),
    *_of_feature(
        "dover",
        ("technical", "aesthetic", "overall"),
        (
            "dover_technical",
            Direction.HIGHER,
            "",
            _SHARE,
            "Technical quality of the clip, from 0 to 1: few distortions such as noise, blur and jitter, by DOVER.",
        ),
        (
            "dover_aesthetic",
            Direction.HIGHER,
            "",
            _SHARE,
            "Aesthetic quality of the clip, from 0 to 1: content and composition, by DOVER.",
        ),
        (
            "dover_overall",
            Direction.HIGHER,
            "",
            _SHARE,
            "Quality of the clip, from 0 to 1: `dover_technical` and `dover_aesthetic` together, as DOVER weighs them.",
        ),
    ),
    Metric(
        "overall_consistency",
        "viclip",
        "similarity",
        Direction.HIGHER,
        "",
        "VBench's overall consistency, of every prompt: similarity of clip and caption by ViCLIP.",
        bounds=(-1.0, 1.0),
    ),
    Metric(
        "temporal_style",
        "viclip",
        "avbench.metrics.vbench:temporal_style",
        Direction.HIGHER,
        "",
        "VBench's temporal style: `overall_consistency` of VBench's prompts for it.",
        bounds=(-1.0, 1.0),
        unable="none of their prompts has `temporal_style` among its tag `dimensions`, as VBench's prompts have",
    ),
    Metric(
        "text_alignment",
        "text-alignment",
        "similarity",
        Direction.HIGHER,
        "",
        "Similarity of frames and caption: cosine of CLIP ViT-B/32, without CLIPScore's factor 2.5.",
        bounds=(-1.0, 1.0),
    ),
    *_similarity(
        "clap_text_audio",
        "clap-text-audio",
        "Similarity of the sound and its caption: cosine of CLAP, which some papers print times 100.",
        "the sound's mean similarity to the captions of other prompts",
        "excess_over_captions",
    ),
    *_similarity(
        "ms_clap_text_audio",
        "ms-clap-text-audio",
        "Similarity of the sound and its caption: cosine of MS-CLAP, not comparable with `clap_text_audio`.",
        "the sound's mean similarity to the captions of other prompts",
        "excess_over_captions",
    ),
    *_of_feature(
        "audiobox",
        ("enjoyment", "usefulness", "complexity", "quality"),
        (
            "audiobox_enjoyment",
            Direction.HIGHER,
            "",
            _ANY,
            "How much listeners would enjoy the sound: Audiobox-Aesthetics' CE, about 1 to 10.",
        ),
        (
            "audiobox_usefulness",
            Direction.HIGHER,
            "",
            _ANY,
            "How useful the sound is as material for something else: Audiobox-Aesthetics' CU, about 1 to 10.",
        ),
        (
            "audiobox_complexity",
            Direction.BAND,
            "",
            _ANY,
            "How many components the sound has: Audiobox-Aesthetics' PC, about 1 to 10.",
        ),
        (
            "audiobox_quality",
            Direction.HIGHER,
            "",
            _ANY,
            "How well the sound is recorded or produced: Audiobox-Aesthetics' PQ, about 1 to 10.",
        ),
    ),
    *_similarity(
        "pe_av",
        "pe-av",
        "Similarity of the picture and the sound: cosine of PE-AV.",
        "the picture's mean similarity to the sounds of other clips",
        "excess_over_sounds",
    ),
    *_similarity(
        "imagebind",
        "imagebind",
        "Similarity of the picture and the sound: cosine of ImageBind, which some papers print times 100.",
        "the picture's mean similarity to the sounds of other clips",
        "excess_over_sounds",
    ),
    *_similarity(
        "pe_text_video",
        "pe-text-video",
        "Similarity of the picture and its caption: cosine of PE-AV.",
        "the picture's mean similarity to the captions of other prompts",
        "excess_over_video_captions",
    ),
    *_similarity(
        "pe_text_audio",
        "pe-text-audio",
        "Similarity of the sound and its caption: cosine of PE-AV.",
        "the sound's mean similarity to the captions of other prompts",
        "excess_over_audio_captions",
    ),
    Metric(
        "wer",
        "whisper",
        "avbench.metrics.sound:wer",
        Direction.LOWER,
        "",
        "Word error rate of the prompt's speech, by Whisper; more words than asked for can make it exceed 1.",
    ),
    *_of_feature(
        "syncnet",
        ("distance", "confidence"),
        (
            "lip_sync_distance",
            Direction.LOWER,
            "",
            _POSITIVE,
            "Distance of lips and speech at their best shift in time: SyncNet's LSE-D, for clips with a face.",
        ),
        (
            "lip_sync_confidence",
            Direction.HIGHER,
            "",
            _POSITIVE,
            "How much nearer lips and speech are at their best shift than at others: SyncNet's LSE-C.",
        ),
    ),
    *_of_feature(
        "physics-judge",
        ("rating", "spread"),
        (
            "physics_judge",
            Direction.HIGHER,
            "",
            (1.0, 5.0),
            "Physical plausibility as a vision-language model rates it, by VideoPhy-2's and VideoScore2's questions.",
        ),
        (
            "physics_judge_spread",
            Direction.NEITHER,
            "",
            (0.0, 2.31),  # where two of the four answers are 1 and two are 5
            "How much `physics_judge` depends on the words of the questions: standard deviation over them (ddof 1).",
        ),
    ),
    Metric(
        "near_copies",
        "i3d-k400",
        "avbench.metrics.neighbours:near_copies",
        Direction.LOWER,
        "share",
        "Share of clips that are as near to a real clip as 1 % of real clips are to another. Chance gives up to 2 % "
        "with 99 real clips, the fewest, and about 1 % with 200 or more. They must be several of a prompt, or of other "
        "prompts.",
        bounds=(0.0, 1.0),
        settings={"level": 0.01},
        column="logits",
    ),
    _share("precision", 3, "Share of the model's clips that lie among the reference's."),
    _share("recall", 3, "Share of the reference's clips that lie among the model's."),
    _share("density", 5, "How densely the reference's clips surround the model's. Real clips have about 1."),
    _share("coverage", 5, "Share of the reference's clips with a clip of the model near them."),
    Metric(
        "fvd_infinity",
        "i3d-k400",
        "avbench.metrics.frechet:frechet_infinity",
        Direction.LOWER,
        "",
        "Estimate of `fvd` at infinitely many clips. It needs 2,000 clips, five for each dimension.",
        per_clip=False,
        bounds=_ANY,  # the line through the values of fewer clips can end below 0
        settings={"ddof": 1},
        column="logits",
        least_clips=2000,
    ),
    _kernel("kvd_quadratic", "i3d-k400", "`kvd` with JEDi's kernel.", degree=2, coef0=0.0),
    _frechet(
        "fvd_stylegan_v",
        "i3d-stylegan-v",
        "FVD as StyleGAN-V's code computes it, from the first window of a generated clip and any of a real one; so it "
        "has no null.",
        reference_column="logits_random",
        ddof=0,
    ),
    _frechet("fvd_cd_fvd", "i3d-cd-fvd", "FVD as cd-fvd computes it.", ddof=0),
    _frechet("fvd_fvd_comparison", "i3d-fvd-comparison", "FVD as the TensorFlow original computes it."),
    _frechet("fvd_common_metrics", "i3d-common-metrics", "FVD as common_metrics computes it."),
    _frechet(
        "fvd_asva",
        "i3d-asva",
        "FVD as ASVA computes it, from one window of a generated clip and three of a real one; so it has no null.",
        reference_column="logits_windows",
    ),
    _frechet("fvd_fastvideo", "i3d-fastvideo", "FVD as FastVideo computes it.", epsilon=1e-6),
    _frechet("fvd_javisbench", "i3d-javisbench", "FVD as JavisBench computes it, with its range defect."),
    _frechet(
        "fvd_torchscript",
        "i3d-torchscript",
        "`fvd_stylegan_v` with StyleGAN-V's own weights file.",
        reference_column="logits_random",
        ddof=0,
    ),
    _frechet(
        "fvd_pretrained_400",
        "i3d-pretrained-400",
        "`fvd_cd_fvd` with cd-fvd's own weights file.",
        ddof=0,
    ),
    _frechet(
        "fvd_videomae",
        "videomae-g-ssv2",
        "Fréchet distance of VideoMAE features, as cd-fvd computes it for arrays.",
        column="embedding",
        ddof=0,
    ),
    _kernel(
        "kvd_vjepa2",
        "vjepa2",
        "Kernel distance of V-JEPA 2 features, after JEDi's idea, unbiased.",
        column="embedding",
        degree=2,
        coef0=0.0,
    ),
    _lpips("vgg", "consecutive", "`lpips_consecutive` with VGG16."),
    _lpips("squeeze", "consecutive", "`lpips_consecutive` with SqueezeNet."),
    _lpips("alex", "reference", "Perceptual difference from the reference clip of the prompt, frame by frame."),
    _lpips("vgg", "reference", "`lpips_reference` with VGG16."),
    _lpips("squeeze", "reference", "`lpips_reference` with SqueezeNet."),
    _lpips("alex", "seeds", "Perceptual difference between a prompt's clips under several seeds: diversity."),
    _lpips("vgg", "seeds", "`lpips_seeds` with VGG16."),
    _lpips("squeeze", "seeds", "`lpips_seeds` with SqueezeNet."),
)

_WITH_RAFT = ("warping_error", "motion_amount", "event_rate", "sync_excess", "flow_consistency", "acceleration")
_ALSO_WITH: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("raft", "flow-raft", "flow by RAFT", _WITH_RAFT),
    ("served", "physics-judge-served", "a model behind a server", ("physics_judge", "physics_judge_spread")),
)
"""Ending of the name, feature, what it is in words, and the metrics that are also computed from this feature."""

_LISTED = (*_DEFAULT, *(replace(metric, usual=False) for metric in _ON_REQUEST))

METRICS: tuple[Metric, ...] = (
    *_LISTED,
    *(
        replace(
            metric,
            name=f"{metric.name}_{ending}",
            feature=feature,
            question=f"`{metric.name}` with {what}.",
            usual=False,
        )
        for ending, feature, what, names in _ALSO_WITH
        for metric in _LISTED
        if metric.name in names
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
"""Code whose FVD is computed → the metric that computes it, on the same I3D weights."""


def known_metrics() -> dict[str, Metric]:
    """Every metric by name: the table's, then those of other packages that can be used."""
    return {metric.name: metric for metric in METRICS} | _plugged()[0]


def problems() -> dict[str, str]:
    """Name → why a metric that another package adds is not used, in a sentence."""
    return _plugged()[1]


def why_no_metric(name: str) -> str:
    """Why no metric of a name can be used, in a sentence: what is wrong with that of another package, or near names."""
    near = nearest(name, known_metrics(), "`avbench list metrics`")
    return problems().get(name) or f"metric {name!r} is unknown; {near}; of another package, install that first"


def _plugged() -> tuple[dict[str, Metric], dict[str, str]]:
    found = find("avbench.metrics", [metric.name for metric in METRICS])
    metrics, unusable = {}, dict(found.problems)
    for name, plug_in in found.usable.items():
        one = _checked_once(plug_in)
        if isinstance(one, Metric):
            metrics[name] = one
        else:
            unusable[name] = one
    return metrics, unusable


@functools.lru_cache
def _checked_once(plug_in: PlugIn) -> Metric | str:
    """Return the metric of another package, or why it cannot be used; a failed import is not tried again."""
    try:
        return _checked(plug_in)
    except InputError as error:
        return str(error)


def _checked(plug_in: PlugIn) -> Metric:
    """The metric of another package. Raises InputError where it, or something that it names, cannot be used."""
    metric: Metric = plug_in.load(Metric)
    if wrong := _wrong_field(metric):
        raise InputError(plug_in.unusable(wrong))
    if metric.name != plug_in.name:
        raise InputError(plug_in.unusable(f"it calls itself {metric.name!r}"))
    functions = [metric.function] if metric.column or ":" in metric.function else []
    for place in (*functions, metric.pooled, metric.moments):
        try:
            with importing(place.partition(":")[0]):
                known = not place or callable(resolve(place))
        except Exception as error:  # whatever the other package's code raises
            raise InputError(plug_in.unusable(f"{place} cannot be loaded: {first_line(error)}")) from error
        if not known:
            raise InputError(plug_in.unusable(f"{place} is not a function"))
    for feature in (metric.feature, metric.beside):
        if feature:
            try:
                feature_class(feature)
            except InputError as error:
                raise InputError(plug_in.unusable(str(error))) from error
    return replace(metric, package=plug_in.package)


IN_PROTOCOL = (
    *("metric", "package", "feature", "subset", "reference"),
    *("column", "reference_column", "clip_form", "beside", "notes"),
)
"""What a score's protocol holds beside the settings of its metric (see evaluate.py)."""


def _wrong_field(metric: Metric) -> str | None:
    """Say which field of a metric has a value of another type than its annotation; None if all are right."""
    for name, kind in typing.get_type_hints(Metric).items():
        value, plain = getattr(metric, name), typing.get_origin(kind) or kind
        if not isinstance(value, plain):
            return f"its {name} is {value!r}; it must be a {plain.__name__}"
    if not re.fullmatch(r"[\w.-]+", metric.name):
        return f"its name is {metric.name!r}; it may have letters, digits, '_', '-' and '.'"
    if taken := [name for name in metric.settings if name in IN_PROTOCOL]:
        return f"its settings have the name {taken[0]!r}, by which a score's protocol holds something else"
    if len(metric.bounds) != 2 or not all(isinstance(one, int | float | None) for one in metric.bounds):
        return f"its bounds are {metric.bounds!r}; they must be two numbers, or None where there is no bound"
    try:
        digest(dict(metric.settings))
    except (TypeError, ValueError) as error:
        return f"its settings cannot be stored as JSON: {first_line(error)}"
    return None
