"""avbench: evaluate text-to-video and text-to-audio-video models, with numbers that can be defended."""

__version__ = "0.1.0"
