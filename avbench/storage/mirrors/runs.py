"""Reads the run that lies in a mirror, and compares its lines with those of the run folder."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from avbench.core import InputError, Key, as_typed
from avbench.storage import reading
from avbench.storage.mirrors.state import Sides, in_order
from avbench.storage.reading import REMOVE_LINE
from avbench.storage.runs.folder import RunFolder
from avbench.storage.runs.row_lines import stored_rows


def clips_in(folder: Path) -> dict[str, str]:
    """The clips that the lines of a run folder name, with their sha256."""
    samples = RunFolder(folder).samples().values()
    return {one.path: one.sha256 for one in samples if one.path is not None and one.sha256 is not None}


def downloaded(sides: Sides, work: Path, names: Sequence[str]) -> RunFolder:
    """All but the clips, downloaded in this order into an empty folder. Raises InputError if the run is damaged."""
    for part in in_order(names):
        sides.storage.get(part, [reading.inside(work, name) for name in part])
    found = RunFolder(work)
    try:
        found.subsets()
        found.samples()
        for rows in found.path.glob("features/*/rows.jsonl"):
            stored_rows(rows)
    except InputError as error:
        sentence = str(error).replace(str(work), sides.url).removesuffix(REMOVE_LINE)
        push = f"`avbench runs push --verify FOLDER {as_typed(sides.url)}`"
        msg = (
            f"the mirror is damaged: {sentence}. {push}, with the folder that was uploaded there last, uploads it again"
        )
        raise InputError(msg) from None
    return found


def with_other_lines(folder: Path, new: RunFolder, here: Iterable[str], *, recorded: bool) -> list[str]:
    """The folder's files with lines, by their keys, that those of the mirror's run have not; unless that run is of
    another model or other settings, and has replaced this one.

    Args:
        folder: the run folder.
        new: the mirror's run, without its clips.
        here: the names of the folder's files.
        recorded: whether the mirror's last writer recorded which files with lines it left; one that is missing was then
            deleted by it.
    """
    old = RunFolder(folder)
    if "run.json" not in here:
        return []
    ours, theirs = old.run(), new.run().spelled_as(old.run())
    if (ours.model, ours.settings) != (theirs.model, theirs.settings):
        return []
    found = []
    for name in (name for name in here if name == "samples.jsonl" or name.endswith("/rows.jsonl")):
        mine, other = folder / name, new.path / name
        if not other.exists():
            lost = not recorded
        else:
            begins = other.read_bytes().startswith(mine.read_bytes())
            lost = not begins and bool(_keys(folder, name) - _keys(new.path, name))
        found += [name] if lost else []
    return found


def _keys(run: Path, name: str) -> set[Key]:
    """The keys of the lines of a run folder's file."""
    return {*(RunFolder(run).samples() if name == "samples.jsonl" else stored_rows(run / name))}
