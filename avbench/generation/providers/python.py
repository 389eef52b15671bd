"""Runs a user's class or function as a generator: ``python:package.module:Class``, or an object in memory.

A class is built with the ``-M`` settings. `settings`, `batch_size`, `concurrency`, `remarks`, `source` and `asked` are
optional. A function takes one request and returns what `generate` returns for one. The module is also looked up in the
current folder, as ``python -m`` does.
"""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from avbench.core import Clip, InputError, kind_and_first_line, nearest
from avbench.generation.identity import default_files, identity
from avbench.generation.settings import check_attributes, check_recordable, check_settings
from avbench.generation.table import Made, Request
from avbench.storage.workers.contained import blamed_on, contained
from avbench.storage.workers.working_folder import WorkingFolder, after_import


class OwnModel:
    """The user's object as a generator."""

    def __init__(self, target: str | Any, /, **settings: Any) -> None:
        """Import ``module:name`` and build it if it is a class; an object is used as it is."""
        self.working_folder = WorkingFolder()
        model: Any = target
        if isinstance(target, str):
            model, self.working_folder = _imported(target)
        kind = _kind(model)
        _check_given(model, target, settings)
        taken = default_files(model, settings) if isinstance(target, str) else []
        if inspect.isclass(model):
            with blamed_on(f"building {target}"), contained(self.working_folder):
                model = model(**settings)
        if not callable(getattr(model, "generate", model)):
            msg = f"{target} is no generator: it is not callable and has no method generate(requests)"
            raise InputError(msg)
        self._model = model
        check_attributes(model, kind.__name__)
        self.batch_size: int = getattr(model, "batch_size", 1)
        if concurrency := getattr(model, "concurrency", None):
            self.concurrency = concurrency
            if concurrency > 1:
                self.working_folder.share()
        given = {**settings, **getattr(model, "settings", {})}
        if isinstance(target, str):
            given |= _filled_in(model, target)
        self.settings: Mapping[str, Any] = {**given, **identity(kind, [*given.values(), *taken])}
        for name in ("prepare", "remarks", "source", "asked"):
            if hasattr(model, name):
                setattr(self, name, self._own(name))

    @staticmethod
    def check(target: str, /, **settings: Any) -> None:
        """Import ``module:name`` and check the names of the settings; nothing is built."""
        _check_given(_imported(target)[0], target, settings)

    def generate(self, requests: Sequence[Request]) -> Iterable[Made | Clip | Path | InputError]:
        """Make the clips."""
        if hasattr(self._model, "generate"):
            return self._model.generate(requests)
        return [self._model(request) for request in requests]

    def _own(self, name: str) -> Callable[..., Any]:
        """A method of the user's object, whose errors are said to be its own."""

        def called(*given: Any) -> Any:
            with blamed_on(f"{name} of {_kind(self._model).__name__}"), contained(self.working_folder):
                return getattr(self._model, name)(*given)

        return called


def _check_given(model: Any, target: Any, settings: Mapping[str, Any]) -> None:
    if inspect.isclass(model):
        check_settings(model, settings, f"python:{target}", avbenchs=())
    elif settings:
        msg = f"{target} is not a class, so it takes no settings: {', '.join(settings)}"
        raise InputError(msg)


def _kind(model: Any) -> Any:
    """What the user wrote: a class, a function, or the class of an object; the innermost of `_layers`."""
    *_, inner = _layers(model)
    return inner if inspect.isclass(inner) or inspect.isfunction(inner) else type(inner)


def _layers(model: Any) -> Iterator[Any]:
    """A model, and what is inside it: a partial's function, a method's object, a decorated function."""
    while True:
        yield model
        if isinstance(model, functools.partial):
            model = model.func
        elif inspect.ismethod(model):
            model = model.__self__
        elif hasattr(model, "__wrapped__"):
            model = model.__wrapped__
        else:
            return


def _filled_in(model: Any, target: str) -> dict[str, Any]:
    """The arguments of partly called functions (functools.partial), which decide their clips as settings do."""
    partials = [one for one in _layers(model) if isinstance(one, functools.partial)]
    given = [{"arguments": [*one.args], "keywords": one.keywords} for one in partials]
    if not given:
        return {}
    filled = {"partial": given}
    check_recordable(filled, f"the arguments of the partial {target}")
    return filled


def _imported(target: str) -> tuple[Any, WorkingFolder]:
    """What a target names, and the working folder of its code."""
    module, colon, name = target.partition(":")
    if not all((module, colon, name)):
        msg = f"python:{target}: write python:package.module:Class"
        raise InputError(msg)
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.append(str(Path.cwd()))
    folder = WorkingFolder()
    try:
        with contained(folder):
            found = importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            msg = f"python:{target}: there is no module {error.name} in {Path.cwd()} or among the installed packages"
            if module.endswith(".py") and Path(module).is_file():
                msg = f"python:{target}: for the file {module} write python:{module.removesuffix('.py')}:{name}"
        else:
            msg = f"python:{target}: importing {module} failed: {kind_and_first_line(error)}"
        raise InputError(msg) from error
    if not hasattr(found, name):
        public = [one for one in vars(found) if not one.startswith("_")]
        msg = f"python:{target}: {module} has no {name!r}; {nearest(name, public)}"
        raise InputError(msg)
    return getattr(found, name), after_import(found, folder)
