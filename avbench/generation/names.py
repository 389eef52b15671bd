"""Reads the names that users give to models, and makes those that they do not give."""

import re
import shlex
import unicodedata
from contextlib import suppress
from pathlib import Path

from avbench.core import LONGEST_NAME, InputError, checked_name, masked, of_a_name
from avbench.generation.detect import detect
from avbench.generation.identity import from_here, placed, real_script
from avbench.storage.reading import exists


def split_name(text: str) -> tuple[str | None, str]:
    """Split ``name=model`` or ``name=path`` into name and rest; the name is None if there is none.

    An existing path that contains ``=`` is read as a path.

    Raises:
        InputError: the name has letters that names cannot have, or the rest is empty, which would stand for the current
            folder.
    """
    name, equals, rest = text.partition("=")
    named = equals and "/" not in name and ":" not in name  # which paths and provider:target have
    if text and (not named or exists(Path(text))):
        return None, text
    if not rest:
        msg = f"{f'the path of {text}' if text else 'a path'} is empty; write {text}. for the current folder"
        raise InputError(msg)
    return checked_name(name, f"{masked(text)} is no path here, and in NAME=… the name"), rest


def run_name(model: str) -> str:
    """Return a short name for a model that can name a folder: ``toyworld``, ``toyworld-frozen``, ``t2v``.

    A file has the same name by whatever path it is given.
    """
    provider, colon, target = model.partition(":")
    if not colon:
        provider, target = "clips", model
    if provider in ("clips", "diffusers", "fastvideo"):
        name = placed(Path(target)).name if target else ""
    else:
        if provider == "avfulldit" and "+" in target:
            target = "-".join(Path(part).stem for part in target.split("+"))
        words = _words(target) if provider == "cmd" else [target]
        target = " ".join(_from_here(real_script(word)) for word in words)
        name = "-".join(part for part in (provider, target.replace("/", "-")) if part)
    name = re.sub(r"-{2,}|\.{2,}", "-", _with_letters_only(name)).strip(".-_")
    return name.encode()[:LONGEST_NAME].decode(errors="ignore") or provider


def _with_letters_only(name: str) -> str:
    """The name with hyphens for what a name cannot have, and é as e; other alphabets keep their accents."""
    found = ""
    for letter in unicodedata.normalize("NFC", name):
        if unicodedata.category(letter)[0] == "M" and (not found or found[-1].isascii()):
            continue
        bare = "".join(one for one in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(one))
        letter = bare if bare and bare.isascii() else letter
        found += letter if all(map(of_a_name, letter)) else "-"
    return found


def same_place(model: str, other: str) -> bool:
    """Whether two models are one file or folder, named by two paths: ``clips:out/a`` and ``clips:/home/me/out/a``."""
    provider, path = _provider_and_path(model)
    their_provider, their_path = _provider_and_path(other)
    return provider == their_provider and exists(path) and path.resolve() == their_path.resolve()


def _provider_and_path(model: str) -> tuple[str, Path]:
    if exists(Path(model)):
        with suppress(InputError):
            model = detect(Path(model)).model or model
    provider, _, target = model.partition(":")
    return provider, Path(target)


def _words(command: str) -> list[str]:
    """The words of a command as a shell reads them; of one that no shell can read, what lies between its spaces."""
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _from_here(word: str) -> str:
    """A word of a command whose path, which may stand after ``=``, is seen from the current folder."""
    whole, (option, equals, path) = from_here(word), word.partition("=")
    return f"{option}={from_here(path)}" if equals and whole == word else whole
