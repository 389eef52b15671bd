"""AVFullDiT, the bundled generator: two pretrained towers joined by AVFull-Attention and AVSyncRoPE.

A small library of its own (arXiv 2512.02457). `model` joins towers (`native`, `wan`, `flux`), `flow` is how they are
trained and sampled, `codec` and `spectrogram` are the latents of the toy scale, `pipeline` samples; `avbench.training`
trains.
"""

from pathlib import Path
from typing import overload

_CHECKPOINTS = Path(__file__).parent / "checkpoints"


@overload
def bundled() -> list[str]: ...
@overload
def bundled(name: str) -> Path | None: ...
def bundled(name: str | None = None) -> list[str] | Path | None:
    """The names of the bundled checkpoints, or the folder of one (None if it is none)."""
    names = sorted(path.name for path in _CHECKPOINTS.glob("*") if path.is_dir())
    if name is None:
        return names
    return _CHECKPOINTS / name if name in names else None
