"""Makes a subset of folders of finished clips, from a prompts file or by pairing clips by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from avbench.core import InputError, Prompt, Subset, as_typed
from avbench.storage.clip_files import clips_in, without_suffix
from avbench.subsets.loading import from_folder, from_prompts_file

PROMPT_FILES = tuple(f"prompts.{suffix}" for suffix in ("jsonl", "json", "csv", "parquet", "txt"))
"""Names of the prompts file that is looked for inside a folder of clips and beside it."""
SUBSET_NAME = "clips"
"""Name of a subset without a prompts file."""


@dataclass(frozen=True)
class Paired:
    """A subset for several folders of clips."""

    subset: Subset
    prompts_file: Path | None
    """The file of its prompts; None if the clips' names are its prompts."""
    apart: tuple[str, str] | None
    """A name in the first folder and one in another, if the first has no name in common with any; else None."""


def prompts_file_of(folders: Sequence[Path]) -> Path | None:
    """The prompts file inside or beside the first folder that has one, or None."""
    places = [place for folder in folders for place in (folder, folder.resolve().parent)]
    found = (place / name for place in places for name in PROMPT_FILES)
    return next((path for path in found if path.is_file()), None)


def paired(
    folders: Sequence[Path], prompts: Path | None, fits: Callable[[Path, Subset], bool], *, frames: bool = False
) -> Paired:
    """Make the subset of the clips in folders.

    Args:
        folders: folders of clips.
        prompts: a prompts file. If it is None, a file inside or beside a folder is used if it matches clips of one of
            them; otherwise each clip's name, without its suffix, is a prompt.
        fits: whether a clip in a folder has the name of one of a subset's prompts.
        frames: whether folders of numbered frames count as clips.

    Raises:
        InputError: a folder is missing or has no clip, or the prompts file cannot be read.
    """
    for folder in folders:
        _require_clips(folder)
    stems = []
    for folder in folders:
        found = clips_in(folder)
        paths = (*found.clips, *found.frames) if frames else found.clips
        if not paths:
            from_folder(folder, frames=frames)  # raises, with the reason
        stems.append({without_suffix(path.relative_to(folder)) for path in paths})
    if prompts is not None:
        return Paired(from_prompts_file(prompts), prompts, _apart(stems))
    if lying := prompts_file_of(folders):
        try:
            subset = from_prompts_file(lying)
        except InputError as error:
            msg = (
                f"{error}. This file was found with the clips and would be their prompts: correct it, name another one "
                "by prompts (--prompts), or rename it to have clips paired by file name"
            )
            raise InputError(msg) from None
        if any(fits(folder, subset) for folder in folders):
            return Paired(subset, lying, _apart(stems))
    united: dict[str, Prompt] = {}
    for folder in folders:
        for prompt in from_folder(folder, frames=frames).prompts:
            united.setdefault(prompt.id, prompt)
    ordered = tuple(united[identifier] for identifier in sorted(united))
    return Paired(Subset(SUBSET_NAME, 1, ordered, None, {"purpose": "clips, paired by name"}), None, _apart(stems))


def _require_clips(folder: Path) -> None:
    if not folder.exists():
        msg = f"{folder}: the folder does not exist"
        raise InputError(msg)
    if not folder.is_dir():
        msg = f"{folder} is a file; give the folder that its clips lie in"
        raise InputError(msg)
    if (folder / "run.json").is_file():
        how = f"`avbench compare {as_typed(folder)} …`"
        msg = f"{folder} is a run folder of avbench, whose clips are scored already: {how}"
        raise InputError(msg)


def _apart(stems: Sequence[set[str]]) -> tuple[str, str] | None:
    """The field `apart`."""
    if len(stems) == 1:
        return None
    first, others = stems[0], set[str]().union(*stems[1:])
    return None if first & others else (min(first), min(others))
