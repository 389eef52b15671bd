"""Identifies a user's own model by content: the hashes of its code and of the files that its settings name.

`source_files` follows a Python file's imports to other files of the user's; `named_paths` finds the paths in a command
line or in settings. Changed code, or another checkpoint under the same name, thus counts as another model.
"""

import ast
import inspect
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from avbench.core import digest
from avbench.generation.detect import fingerprint
from avbench.storage.content import content_sha256
from avbench.storage.reading import exists

_OURS = Path(__file__).resolve().parents[1]
"""avbench's own files are not hashed, because its version is recorded."""
_INSTALLED = {"site-packages", "dist-packages"}
"""Names of the folders in which packages are installed."""
_SCRIPTS = (".py", ".sh", ".bash")


def identity(kind: Any, words: Iterable[Any]) -> dict[str, Any]:
    """Identify a user's own model by content, as plain values for its settings.

    Args:
        kind: the model's class or function.
        words: its arguments and settings; those that are paths count as inputs.

    Returns:
        ``source_sha256`` of the file that defines it, or None; and, if there are any, ``imports_sha256`` of the user's
        files that it imports, and ``inputs``. Of a class of an installed package, all of the package's files count.
    """
    hashes: dict[str, Any] = {"source_sha256": None}
    if path := _source(kind):
        depth = 0 if kind.__module__ == "__main__" else kind.__module__.count(".") + (path.name == "__init__.py")
        root = path.parents[min(depth, len(path.parents) - 1)]
        own = path.relative_to(root).as_posix()
        files = _package_files(path, root) if _INSTALLED & {*root.parts} else source_files(path, root)
        hashes["source_sha256"] = content_sha256(path)
        if others := {name: sha for name, sha in files.items() if name != own}:
            hashes["imports_sha256"] = others
    if found := {text: fingerprint(Path(text)) for text in named_paths(words)}:
        hashes["inputs"] = found
    return hashes


def default_files(kind: Any, given: Container[str]) -> list[str]:
    """The files that a class or function takes by default, for the parameters that are not `given`.

    A folder is not among them: it may be one that the model writes to.
    """
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):  # it is compiled
        return []
    found = named_paths(one.default for one in parameters if one.name not in given)
    return [name for name in found if Path(name).is_file()]


def _source(kind: Any) -> Path | None:
    """Return the file that defines a class or function; None if it is in a notebook or compiled."""
    try:
        found = inspect.getsourcefile(kind)
    except TypeError:
        return None
    return Path(found).resolve() if found and Path(found).is_file() else None


def _package_files(path: Path, root: Path) -> dict[str, str]:
    """Hash all Python files of the installed package that a file belongs to as one. To follow the imports of a large
    one, such as torch, would take half a minute.
    """
    package = root / path.relative_to(root).parts[0]
    every = {one.relative_to(root).as_posix(): content_sha256(one) for one in package.rglob("*.py")}
    return {package.name: digest(every)} if every else {}


def source_files(path: Path, root: Path | None = None) -> dict[str, str]:
    """Hash a Python file and, recursively, the files below `root` that it imports.

    Args:
        path: the file.
        root: the folder in which absolute imports are looked up; by default the file's own.

    Returns:
        Path relative to the root → sha256. The imports of a file that cannot be parsed are not followed.
    """
    root = (root or path.parent).resolve()
    found: dict[Path, str] = {}
    waiting = [path.resolve()]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found[file] = content_sha256(file)
            waiting += [
                one for one in _imported(file, root) if one.is_relative_to(root) and not one.is_relative_to(_OURS)
            ]
    named = {(one.relative_to(root) if one.is_relative_to(root) else one).as_posix(): one for one in found}
    return {name: found[named[name]] for name in sorted(named)}


def _imported(file: Path, root: Path) -> Iterator[Path]:
    """Yield the files below `root` that a Python file imports."""
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
    """Return `source_files` of the file that ``python -m name`` runs, or an empty dict if it is not below `root`."""
    module = root.joinpath(*name.split("."))
    files = [path for path in (module / "__main__.py", module.with_name(f"{module.name}.py")) if path.is_file()]
    return source_files(files[0], root) if files else {}


def _module(base: Path, parts: list[str]) -> Iterator[Path]:
    """Yield the files of a module, and of the packages that contain it."""
    for count in range(len(parts) + 1):
        module = base.joinpath(*parts[:count])
        files = [module / "__init__.py"] if count else []
        for path in (*files, *([module.with_suffix(".py")] if count == len(parts) and count else [])):
            if path.is_file():
                yield path.resolve()


def real_script(word: str) -> str:
    """The word of a command; of a link to a script the path of the script, because both are one model."""
    path = Path(word)
    is_link = path.suffix in _SCRIPTS and exists(path) and path.is_symlink()
    return from_here(path.resolve().as_posix()) if is_link else word


def from_here(word: str) -> str:
    """An existing path as it is from the current folder, or its absolute path if it lies elsewhere; else the word."""
    if not word or not exists(Path(word)):
        return word
    path, here = placed(Path(word)), Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()


def placed(path: Path) -> Path:
    """A path from the root, in whatever way it is written. It may itself be a link: the name that somebody gave to a
    model, or the python of an environment.
    """
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def named_paths(words: Iterable[Any]) -> list[str]:
    """Return the words that are existing paths, or have one after ``=``; lists and mappings are searched too."""
    found: set[str] = set()
    for word in words:
        if isinstance(word, Mapping):
            found |= {*named_paths(word.values())}
        elif isinstance(word, list | tuple):
            found |= {*named_paths(word)}
        elif isinstance(word, str | Path):
            found |= {text for text in (str(word), str(word).partition("=")[2]) if text and _is_input(Path(text))}
    return sorted(found)


def _is_input(path: Path) -> bool:
    """Whether a path exists and is neither the current folder nor one that contains it."""
    if not exists(path):
        return False
    return path.is_file() or (path.is_dir() and path.resolve() not in (Path.cwd(), *Path.cwd().parents))
