"""Makes a subset of folders of finished clips, from a prompts file or by pairing clips by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from avbench.core import InputError, Prompt, Subset, as_typed, counted
from avbench.storage.media.clip_files import clips_in, without_suffix
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
    unfit: Path | None = None
    """A prompts file inside or beside a folder that was not used, because no clip is named after its prompts."""


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
        InputError: a folder is missing or has no clip, the prompts file cannot be read, or that of another folder has
            other captions for the same ids.
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
            _require_same_captions(folders, lying, subset, fits)
            return Paired(subset, lying, _apart(stems))
    united: dict[str, Prompt] = {}
    for folder in folders:
        for prompt in from_folder(folder, frames=frames).prompts:
            united.setdefault(prompt.id, prompt)
    ordered = tuple(united[identifier] for identifier in sorted(united))
    subset = Subset(SUBSET_NAME, 1, ordered, None, {"purpose": "clips, paired by name"})
    return Paired(subset, None, _apart(stems), unfit=lying)


def _require_same_captions(
    folders: Sequence[Path], used: Path, subset: Subset, fits: Callable[[Path, Subset], bool]
) -> None:
    """Raise InputError if the prompts file of another folder has other captions for the same ids."""
    ours = {prompt.id: prompt for prompt in subset.prompts}
    for folder in folders:
        own = prompts_file_of([folder])
        if own is None or own.samefile(used):
            continue
        try:
            theirs = from_prompts_file(own)
        except InputError:  # its captions are not used, so what is wrong with them does no harm
            continue
        both = [(one.id, _unlike(ours[one.id], one)) for one in theirs.prompts if one.id in ours]
        unlike = [(name, captions) for name, captions in both if captions]
        if unlike and fits(folder, theirs):
            name, captions = unlike[0]
            words = " and ".join(repr(text[:60]) for text in captions)
            msg = (
                f"{used} and {own} have different captions for {counted(len(unlike), 'id')}, for example {name}: "
                f"{words}. Clips with one id are compared as clips of one prompt: name the file that is right for all "
                "folders by prompts (--prompts), or rename clips that are of other prompts"
            )
            raise InputError(msg)


def _unlike(one: Prompt, other: Prompt) -> tuple[str, str] | None:
    """The captions in which two prompts differ; None if they do not, or if one of them has none."""
    pairs = (one.video_caption, other.video_caption), (one.audio_caption, other.audio_caption)
    return next(((a, b) for a, b in pairs if a and b and a != b), None)


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
