"""Reads the options of a command from a TOML file, and writes the effective ones to such a file.

A key is the name of an option without its dashes, or `models`; lists are TOML lists. Settings of the model (-M) are the
table [settings], or the list `setting` of "name=value", in which a value may be null. Paths are relative to the folder
in which the command is given, as on the command line.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

SETTINGS = "settings"
_SETTING = "setting"
"""The parameter behind -M."""
_OF_FILE = "avbench settings of a file"
_NOT_WRITTEN = ("config", "replace")


def read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Use the values of a TOML file as defaults of the command that is being parsed.

    Raises:
        InputError: the file cannot be read, a key is unknown, or a value cannot be one of an option.
    """
    if path is None:
        return None
    from avbench.core import InputError, nearest
    from avbench.storage.reading import read_toml

    known = {one.name.replace("_", "-"): one for one in ctx.command.params if one.name}
    choices = [SETTINGS, *(name for name in known if name != "config")]
    defaults: dict[str, Any] = {}
    for key, value in read_toml(path).items():
        where = f"{path}: {key}"
        if key == SETTINGS:
            if not isinstance(value, Mapping):
                msg = f"{where} is {value!r}; it must be a table, [{SETTINGS}]"
                raise InputError(msg)
            defaults[_SETTING] = [*defaults.get(_SETTING, ()), *_as_typed(value)]
            continue
        name = key.replace("_", "-")
        if name not in choices:
            msg = f"{path}: the key {key!r} is unknown; {nearest(key, choices)}"
            raise InputError(msg)
        option = known[name]
        several = getattr(option, "multiple", False) or option.nargs == -1
        if isinstance(value, list) and not several:
            msg = f"{where} is a list; it must be one value"
            raise InputError(msg)
        texts = [_typed(one, where) for one in (value if isinstance(value, list) else [value])]
        defaults[str(option.name)] = [*defaults.get(str(option.name), ()), *texts] if several else texts[0]
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    ctx.meta[_OF_FILE] = defaults.get(_SETTING, [])
    return path


def with_settings_of_file(ctx: typer.Context, given: list[str] | None) -> list[str] | None:
    """The given settings, after those of the file of `read_config` that have other names."""
    names = {one.partition("=")[0] for one in given or ()}
    return [*(one for one in ctx.meta.get(_OF_FILE, ()) if one.partition("=")[0] not in names), *(given or ())] or None


def write_config(path: Path, ctx: typer.Context, settings: Mapping[str, Any]) -> None:
    """Write a command's options to a TOML file that `read_config` reads.

    Args:
        path: of the TOML file.
        ctx: the command's options; those without a value and a default are left out.
        settings: of the model.
    """
    import tomli_w

    from avbench.storage.writing import write_whole

    names = [str(one.name) for one in ctx.command.params if one.name not in (*_NOT_WRITTEN, _SETTING)]
    values = {name: ctx.params.get(name) for name in names}
    values[_SETTING] = _as_typed(settings)  # and not a table: TOML has no null
    plain = {name.replace("_", "-"): _plain(one) for name, one in values.items() if one is not None and one != []}
    write_whole(path, tomli_w.dumps(plain).encode())


def _as_typed(settings: Mapping[str, Any]) -> list[str]:
    """Write settings as values of -M."""
    return [f"{name}={json.dumps(one, ensure_ascii=False)}" for name, one in settings.items()]


def _typed(value: Any, where: str) -> str:
    """Return a value as text, as it would be typed, so that it is checked like any option."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float) and value != "":
        return str(value)
    from avbench.core import InputError

    msg = f"{where} is {value!r}; it must be text that is not empty, a number, true, false, or a list of these"
    raise InputError(msg)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float) else str(value)
