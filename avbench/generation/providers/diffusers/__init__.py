"""Runs pipelines of diffusers as generators.

`provider` is the generator; `loading` makes a pipeline of a folder and what replaces parts of it; `calling` turns a
request into the arguments of that pipeline and its output into a clip; `ranks` spreads a pipeline over devices;
`presets` are published settings.
"""
