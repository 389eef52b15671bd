"""Lists what each feature needs, and checks that it is there before hours are spent on measuring."""

import inspect
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from avbench.core import InputError
from avbench.features.table import FEATURES, Requires, feature_class
from avbench.storage import weights
from avbench.storage.runs.folder import RunFolder

_OF_TRANSFORMERS = (
    *("vjepa2", "clap", "clap-text-audio", "ms-clap-text-audio", "audiobox", "pe-av", "pe-text-video"),
    *("pe-text-audio", "whisper", "physics-judge"),
)
PACKAGES: dict[str, tuple[str, str]] = {
    "av-align": ("librosa", "pip install 'avbench[sync]'"),
    **dict.fromkeys(_OF_TRANSFORMERS, ("transformers", "pip install 'avbench[towers]'")),
}
"""Feature → a package that avbench does not install by itself, and the command that does."""


def requires(feature: str) -> Requires:
    """The arguments that a feature is called with."""
    return Requires(getattr(feature_class(feature), "requires", Requires.CLIP))


def needs_sound(feature: str) -> bool:
    """Whether a feature measures only clips with sound."""
    return getattr(feature_class(feature), "needs_sound", False)


def reads_captions(feature: str) -> bool:
    """Whether a feature compares a clip with its prompt's video caption."""
    return getattr(feature_class(feature), "reads_captions", False)


def weights_of(features: Sequence[str]) -> list[str]:
    """The weights that features need, each once, without those that other packages keep themselves."""
    found: list[str] = []
    for feature in features:
        protocol = inspect.getattr_static(feature_class(feature), "protocol")
        own = isinstance(protocol, weights.UserProvidedProtocol)
        names = protocol.weights if own else [protocol.describe().get("weights")]
        found += [name for name in names if name and (feature in FEATURES or name in weights.WEIGHTS)]
    return list(dict.fromkeys(found))


def lacking_package(feature: str) -> str | None:
    """Which package a feature lacks, and the command that installs it; None if it lacks none."""
    package, command = PACKAGES.get(feature, ("", ""))
    return f"it needs {package}; run `{command}`" if package and find_spec(package) is None else None


def require_ready(features: Sequence[str]) -> None:
    """Raise InputError, before hours are spent, if a package, weights or settings of the environment are missing."""
    for feature in features:
        if lacking := lacking_package(feature):
            msg = f"{feature} cannot be measured: {lacking}"
            raise InputError(msg)
    weights.require(weights_of(features))
    for kind in map(feature_class, features):
        if not isinstance(inspect.getattr_static(kind, "protocol"), weights.UserProvidedProtocol):
            _ = kind.protocol  # reading it needs the settings; that of weights would hash gigabytes


def require_reference_clips(features: Sequence[str], against: Path | RunFolder | None = None) -> None:
    """Raise InputError, before hours are spent, if a feature needs the run of reference clips and there is none."""
    needing = [one for one in features if requires(one) is Requires.REFERENCE_CLIP]
    if needing and against is None:
        msg = (
            f"{needing[0]} compares with reference clips: give the run that holds them, with against (--against "
            "RUN) of run, measure or evaluate"
        )
        raise InputError(msg)
