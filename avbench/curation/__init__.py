"""Builds a subset from real clips with optional captions by written rules, and records every decision.

``pool`` measures each clip once (`measures`, with the camera's motion removed by `camera`); ``rules`` reads rules.toml;
``choice`` decides and writes the subset; `duplicates` finds copies; `sheet` draws the kept clips.
"""
