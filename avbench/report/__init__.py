"""Stage 6: tables for the console and for files, and the page."""
