"""Writes tables for the console and for files, and the page."""
