"""The command line: parses arguments, calls the stages, and prints results. One file per group of commands."""

from avbench.cli import check, data, everyday, program, scale, stages, train
from avbench.cli.program import app, main

__all__ = ["app", "check", "data", "everyday", "main", "program", "scale", "stages", "train"]
