"""avbench: evaluate text-to-video and text-to-audio-video models, with numbers that can be defended."""

import importlib
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avbench.api import ArmComparison, Comparison, Silent, compare, compare_arms, run, score
    from avbench.api.hook import training_hook
    from avbench.core import Audio, Clip, ClipSpec, InputError, Prompt, Subset
    from avbench.core.version import __version__
    from avbench.storage.media import read_clip as load_clip
    from avbench.storage.media import write_clip as save_clip
    from avbench.storage.workers.ray_actors import RayActors

__all__ = [
    "ArmComparison",
    "Audio",
    "Clip",
    "ClipSpec",
    "Comparison",
    "InputError",
    "Prompt",
    "RayActors",
    "Silent",
    "Subset",
    "__version__",
    "compare",
    "compare_arms",
    "load_clip",
    "run",
    "save_clip",
    "score",
    "training_hook",
]
_PLACES = {
    **dict.fromkeys(
        ("ArmComparison", "Comparison", "Silent", "compare", "compare_arms", "run", "score"), "avbench.api"
    ),
    **dict.fromkeys(("Audio", "Clip", "ClipSpec", "InputError", "Prompt", "Subset"), "avbench.core"),
    "RayActors": "avbench.storage.workers.ray_actors",
    "__version__": "avbench.core.version",
    "training_hook": "avbench.api.hook",
    "load_clip": "avbench.storage.media:read_clip",
    "save_clip": "avbench.storage.media:write_clip",
}
"""Public name → module, and its name there if that is another; imported when used, so that --help stays fast."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is used, which leaves the random state of the caller as it is (rich would not)."""
    if name not in _PLACES:
        msg = f"module 'avbench' has no attribute {name!r}"
        raise AttributeError(msg)
    module, _, there = _PLACES[name].partition(":")
    state = random.getstate()
    try:
        return getattr(importlib.import_module(module), there or name)
    finally:
        random.setstate(state)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
