"""Simulates the embedded world: physics, picture, sound and captions of small scenes with known ground truth.

`make_clip(scene, seed)` returns a clip and its ground truth, which depend on nothing else. The clip has 64×64 pixels,
16 frames at 8 fps, and 2 s of 16 kHz mono sound with 16-bit samples.
"""

from avbench.toyworld.captions import audio_caption, video_caption
from avbench.toyworld.scene import COLOURS, FAMILIES, MATERIALS, BodySpec, Scene, random_scene
from avbench.toyworld.world import CLIP_SPEC, Contact, Truth, make_clip, simulate

__all__ = [
    "CLIP_SPEC",
    "COLOURS",
    "FAMILIES",
    "MATERIALS",
    "BodySpec",
    "Contact",
    "Scene",
    "Truth",
    "audio_caption",
    "make_clip",
    "random_scene",
    "simulate",
    "video_caption",
]
