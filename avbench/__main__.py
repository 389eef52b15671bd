"""Runs the command line for ``python -m avbench``."""

from avbench.cli import main

main()
