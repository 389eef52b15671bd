"""Lists presets of columns: names for sets of metrics that are asked for together (``--columns t2av``).

A set has the columns of a benchmark, a paper or a purpose. Each column names the metric that computes it here; a column
that avbench does not compute has a sentence instead. A metric whose weights are missing is left out of a set, and a
note gives the command that fetches them; a metric that is asked for by its own name is an error without its weights.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from avbench.core import InputError, nearest
from avbench.features.requirements import lacking_package, weights_of
from avbench.metrics.evaluate import chosen_metrics, features_of
from avbench.metrics.table import Metric
from avbench.storage import weights
from avbench.storage.weights import fetching
from avbench.storage.weights.fetching import Fetching


@dataclass(frozen=True)
class ColumnSet:
    """A preset of columns."""

    what: str
    """A few words for a list."""
    columns: Mapping[str, str]
    """Column → the metric that computes it."""
    lacking: Mapping[str, str] = field(default_factory=dict)
    """Column that avbench does not compute → why, in words."""


_VBENCH_DETECTORS = "needs GRiT, an object detector"

COLUMNS: dict[str, ColumnSet] = {
    "fast": ColumnSet(
        "metrics without a network: some tenths of a second for a clip of two seconds, and nothing to fetch",
        {
            name: name
            for name in (
                "motion_amount",
                "warping_error",
                "event_rate",
                "acceleration",
                "still_flicker",
                "vbench_flickering",
                "onset_rate",
                "sync_excess",
                "loudness",
                "silence",
                "clipping",
            )
        },
    ),
    "vbench": ColumnSet(
        "the sixteen dimensions of VBench (Huang et al. 2024), as far as avbench has them",
        {
            "subject consistency": "vbench_subject",
            "background consistency": "vbench_background",
            "temporal flickering": "vbench_flickering_static",
            "motion smoothness": "vbench_smoothness",
            "dynamic degree": "vbench_dynamic_degree",
            "aesthetic quality": "aesthetic_quality",
            "imaging quality": "imaging_quality",
            "temporal style": "temporal_style",
            "overall consistency": "overall_consistency",
        },
        {
            "object class": _VBENCH_DETECTORS,
            "multiple objects": _VBENCH_DETECTORS,
            "human action": "needs UMT, a classifier of actions",
            "color": _VBENCH_DETECTORS,
            "spatial relationship": _VBENCH_DETECTORS,
            "scene": "needs Tag2Text, a captioner",
            "appearance style": "compares with style prompts of VBench's own list by CLIP",
        },
    ),
    "t2av": ColumnSet(
        "what papers on joint audio and video print most often, of eleven papers of 2025 and 2026",
        {
            "CLAP (text–audio), 8 of 11": "clap_text_audio",
            "DeSync, 8 of 11": "desync",
            "CLIP (text–video), 5 of 11": "text_alignment",
            "FAD (VGGish), 5 of 11": "fad_vggish",
            "FAD (PANNs), 5 of 11": "fad_panns",
            "FVD": "fvd",
            "AV-Align": "av_align",
            "AV-Align, above chance": "av_align_excess",
            "Audiobox-Aesthetics CE, 7 of 11": "audiobox_enjoyment",
            "Audiobox-Aesthetics CU, 7 of 11": "audiobox_usefulness",
            "Audiobox-Aesthetics PC, 7 of 11": "audiobox_complexity",
            "Audiobox-Aesthetics PQ, 7 of 11": "audiobox_quality",
            "audio–video embedding (ImageBind), 7 of 11": "imagebind",
            "audio–video embedding (ImageBind), above chance": "imagebind_excess",
            "audio–video similarity by PE-AV": "pe_av",
            "audio–video similarity by PE-AV, above chance": "pe_av_excess",
            "WER, 4 of 11": "wer",
            "aesthetic quality, 6 of 11 (with technical quality)": "aesthetic_quality",
            "technical quality, 6 of 11 (with aesthetic quality)": "imaging_quality",
            "technical quality by DOVER": "dover_technical",
            "aesthetic quality by DOVER": "dover_aesthetic",
            "overall quality by DOVER": "dover_overall",
            "lip sync (LSE-D), 7 of 11": "lip_sync_distance",
            "lip sync (LSE-C), 7 of 11": "lip_sync_confidence",
            "physics judge, 3 of 11": "physics_judge",
        },
    ),
    "hearing-helps-seeing": ColumnSet(
        'the columns of "Does Hearing Help Seeing?" (arXiv 2512.02457); the preset of that name has its clips, too',
        {
            "BGConsis": "vbench_background",
            "Dynamic": "vbench_dynamic_degree",
            "SubjQual": "vbench_subject",
            "ImageQual": "imaging_quality",
            "CLAP": "ms_clap_text_audio",
        },
        {
            "TextConsis": "the paper does not say what it is; its values fit overall_consistency",
            "Physics": "needs VideoPhy-2's scorer, and the paper does not say which of its numbers is meant",
            "FAD": "the paper does not say which network's",
            "Sync": "needs 4.8 s, and the paper's clips last 2 s",
        },
    ),
}
"""Name → preset."""


def columns_named(name: str) -> ColumnSet:
    """The preset of columns with this name. Raises InputError on an unknown name."""
    if name not in COLUMNS:
        msg = f"columns {name!r} are unknown; {nearest(name, COLUMNS)}"
        raise InputError(msg)
    return COLUMNS[name]


@dataclass(frozen=True)
class Wanted:
    """The metrics that a user asks for."""

    metrics: Sequence[str] | None = None
    """Their names."""
    columns: str | None = None
    """A preset of columns. Without it and `metrics`, the default metrics are meant."""
    besides: Sequence[str] = ()
    """Names of metrics that are computed in any case, such as FVD under another protocol."""
    fetch: Fetching | None = None
    """How missing weights are downloaded; None if they are not."""


def wanted_metrics(wanted: Wanted, note: Callable[[str], None]) -> list[Metric]:
    """The metrics that a user asks for, in the table's order; weights are fetched where that is asked for.

    Args:
        wanted: what is asked for.
        note: takes a sentence for each column that cannot be had, and for metrics that are left out of a preset.

    Raises:
        InputError: a name is unknown, the weights of a metric that is named cannot be fetched or a package that it
            needs is missing, or nothing is left of a preset. Weights that are missing and not fetched are no error
            here; see `require_ready`.
    """
    own = [] if wanted.columns and wanted.metrics is None else [one.name for one in chosen_metrics(wanted.metrics)]
    own += wanted.besides
    of_set: list[str] = []
    if wanted.columns:
        found = columns_named(wanted.columns)
        of_set = [name for name in found.columns.values() if name not in own]
        if found.lacking:
            lacking = "; ".join(f"{column} ({why})" for column, why in found.lacking.items())
            note(f"columns of {wanted.columns} that avbench does not compute: {lacking}")
    packages = {name: lacking for name in of_set if (lacking := _lacking_package(name))}
    for name, lacking in packages.items():
        note(f"{name} is left out: {lacking}")
    of_set = [name for name in of_set if name not in packages]
    if wanted.fetch:
        for name in own:  # before gigabytes are downloaded for it
            if lacking := _lacking_package(name):
                msg = f"{name} cannot be computed: {lacking}"
                raise InputError(msg)
        of_set = fetched(of_set, own, wanted.fetch, note)
    usable, sentence = with_weights(of_set)
    if sentence:
        note(f"left out of {wanted.columns}: {', '.join(name for name in of_set if name not in usable)}: {sentence}")
    if not wanted.columns and not own:
        msg = "no metric is left to compute: none was named"
        raise InputError(msg)
    if not usable and not own:
        msg = f"nothing is left of the columns {wanted.columns}: {sentence or 'their weights could not be fetched'}"
        raise InputError(msg)
    return chosen_metrics([*own, *usable])


def _lacking_package(name: str) -> str | None:
    return next(filter(None, map(lacking_package, features_of(chosen_metrics([name])))), None)


def with_weights(names: Sequence[str]) -> tuple[list[str], str | None]:
    """Those of these metrics whose weights are there, and a sentence on how to fetch those of the others."""
    lacking = weights.missing(_weights_of(names))
    usable = [name for name in names if not {*lacking} & {*_weights_of([name])}]
    return usable, weights.how_to_fetch(lacking) if lacking else None


def _weights_of(names: Sequence[str]) -> list[str]:
    return weights_of(features_of(chosen_metrics(names)))


def fetched(names: Sequence[str], required: Collection[str], how: Fetching, note: Callable[[str], None]) -> list[str]:
    """Fetch the weights of metrics; return those of `names` whose weights could be fetched, and note why others not.

    Raises:
        InputError: the weights of a `required` metric cannot be fetched.
    """
    for name in weights.missing(_weights_of([*required])):
        fetching.fetch(name, how=how)
    usable = []
    for name in names:
        try:
            for weight in weights.missing(_weights_of([name])):
                fetching.fetch(weight, how=how)
            usable.append(name)
        except InputError as error:
            note(f"{name} is left out: {error}")
    return usable
