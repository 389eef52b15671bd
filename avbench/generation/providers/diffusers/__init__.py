"""Runs pipelines of diffusers as generators.

`provider` is the generator; `loading` builds a pipeline from a folder and the parts that replace some of its own;
`calling` turns a request into the arguments of that pipeline and its output into a clip; `ranks` spreads a pipeline
over devices; `presets` are published settings.
"""
