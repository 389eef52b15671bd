"""AVFullDiT, the bundled generator: two pretrained towers joined by AVFull-Attention and AVSyncRoPE.

A small library of its own (arXiv 2512.02457). `model` joins towers (`native`, `wan`, `flux`), `flow` is how they are
trained and sampled, `codec` and `spectrogram` are the latents of the toy scale, `pipeline` samples; `avbench.training`
trains.
"""

from pathlib import Path

BUNDLED = {path.name: path for path in sorted((Path(__file__).parent / "checkpoints").glob("*")) if path.is_dir()}
"""Name of a bundled checkpoint → its folder."""
