"""Stage 1: what does a set of real clips hold? Readers of the field's datasets, from a folder that the user has.

A pool is ``reader:FOLDER``, or a bare folder of clips with or without a prompts.jsonl. A reader never fetches anything:
it reads the folder as its authors distribute it, says what is missing, and keeps which split a clip is from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avbench.core.prompt import checked_id


@dataclass(frozen=True)
class Entry:
    """One clip of a pool, or one prompt of a set that has no clips. Raises InputError on an unusable id."""

    id: str
    path: Path | None
    """The clip's file; None in a set of prompts."""
    video_caption: str = ""
    """"" where the set has none."""
    audio_caption: str | None = None
    split: str | None = None
    """``train``, ``val`` or ``test``, as the set's authors have it; None where they say nothing."""
    contacts_seconds: tuple[float, ...] | None = None
    """When things touch, seconds from the clip's start, where the set knows; None where it does not."""
    tags: Mapping[str, Any] = field(default_factory=dict)
    """What else the set says: class, material, source."""

    def __post_init__(self) -> None:
        checked_id(self.id, "entry id")
