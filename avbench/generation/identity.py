"""What else decides a model's clips: the code and the files that a command line, a class or a setting names.

`source_files` follows the imports of a Python file to the other files beside it; `named_inputs` finds the paths among
words. Both are told by content, so that other code, or another checkpoint under the same name, is another model.
"""

import ast
import inspect
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import avbench
from avbench.generation.detect import fingerprint
from avbench.storage.content import content_sha256

_OURS = Path(avbench.__file__).resolve().parent
"""Its version is recorded by itself."""


def identity(kind: Any, words: Iterable[Any]) -> dict[str, Any]:
    """What tells a model of somebody's own from another one of the same name, as plain values for its settings.

    Args:
        kind: its class, or the function that it is.
        words: what it was built with, and what it says of itself: those that are paths are inputs.

    Returns:
        ``source_sha256`` of the file that holds it, None where there is none; where there are some, ``imports_sha256``
        of the files beside it that this one imports, and ``inputs``.
    """
    told: dict[str, Any] = {"source_sha256": None}
    if path := _source(kind):
        depth = 0 if kind.__module__ == "__main__" else kind.__module__.count(".") + (path.name == "__init__.py")
        files = source_files(path, path.parents[min(depth, len(path.parents) - 1)])
        told["source_sha256"] = content_sha256(path)
        if others := {name: sha for name, sha in files.items() if not path.as_posix().endswith(f"/{name}")}:
            told["imports_sha256"] = others
    if found := named_inputs(words):
        told["inputs"] = found
    return told


def _source(kind: Any) -> Path | None:
    """The file of a class or a function; None of what was typed into a notebook, or is compiled."""
    try:
        found = inspect.getsourcefile(kind)
    except TypeError:
        return None
    return Path(found).resolve() if found and Path(found).is_file() else None


def source_files(path: Path, root: Path | None = None) -> dict[str, str]:
    """The Python files that one is made of, with their sha256: itself, and what it imports that lies beside it.

    Args:
        path: the file.
        root: the folder that absolute imports are looked up in; the file's own where not given. Of a folder of
            installed packages only the file's own package is looked at.

    Returns:
        Path relative to the root → sha256. What cannot be parsed is taken as it is, without its imports.
    """
    root = (root or path.parent).resolve()
    within = root
    if {"site-packages", "dist-packages"} & {*root.parts} and path.resolve().parent != root:
        within = root / path.resolve().relative_to(root).parts[0]
    found: dict[Path, str] = {}
    waiting = [path.resolve()]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found[file] = content_sha256(file)
            waiting += [
                one for one in _imported(file, root) if one.is_relative_to(within) and not one.is_relative_to(_OURS)
            ]
    named = {(one.relative_to(root) if one.is_relative_to(root) else one).as_posix(): one for one in found}
    return {name: found[named[name]] for name in sorted(named)}


def _imported(file: Path, root: Path) -> Iterator[Path]:
    """The files below `root` that a Python file imports."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield from _module(root, name.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base, parts = root, node.module.split(".") if node.module else []
            if node.level:
                base = file.parents[min(node.level, len(file.parents)) - 1]
            yield from _module(base, parts)
            for name in node.names:
                yield from _module(base, [*parts, name.name])


def module_files(name: str, root: Path) -> dict[str, str]:
    """What ``python -m name`` runs, as `source_files` has it, where it lies below `root`; else nothing."""
    place = root.joinpath(*name.split("."))
    files = [path for path in (place / "__main__.py", place.with_name(f"{place.name}.py")) if path.is_file()]
    return source_files(files[0], root) if files else {}


def _module(base: Path, parts: list[str]) -> Iterator[Path]:
    """The files of a module, and of the packages that it is in."""
    for count in range(len(parts) + 1):
        place = base.joinpath(*parts[:count])
        files = [place / "__init__.py"] if count else []
        for path in (*files, *([place.with_suffix(".py")] if count == len(parts) and count else [])):
            if path.is_file():
                yield path.resolve()


def named_inputs(words: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """The path as it is written → `detect.fingerprint`, of the files and folders that words or settings name."""
    return {text: fingerprint(Path(text)) for text in named_paths(words)}


def named_paths(words: Iterable[Any]) -> list[str]:
    """The words that are paths of something, or have one behind a ``=``; those of lists and of mappings as well."""
    found: set[str] = set()
    for word in words:
        if isinstance(word, Mapping):
            found |= {*named_paths(word.values())}
        elif isinstance(word, list | tuple):
            found |= {*named_paths(word)}
        elif isinstance(word, str | Path):
            found |= {text for text in (str(word), str(word).partition("=")[2]) if text and _there(Path(text))}
    return sorted(found)


def _there(path: Path) -> bool:
    try:
        return path.is_file() or (path.is_dir() and path.resolve() not in (Path.cwd(), *Path.cwd().parents))
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False
