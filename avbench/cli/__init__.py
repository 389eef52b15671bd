"""The command line: parses what was typed, calls the stages, prints. One file per group of commands."""

from avbench.cli import data, everyday, program, scale, stages, train
from avbench.cli.program import app, main

__all__ = ["app", "data", "everyday", "main", "program", "scale", "stages", "train"]
