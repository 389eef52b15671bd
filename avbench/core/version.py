"""Defines the version of avbench, which every run, card and page records."""

__version__ = "0.1.0"
