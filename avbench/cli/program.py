"""Defines the program `avbench`: its groups of commands, its help panels, and how errors become exit codes."""

import contextlib
import copy
import errno
import io
import os
import signal
import sys
import termios
import threading
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from avbench.cli.printing import keep_quiet, print_error, print_line, results_apart, results_fd

PANELS = {
    "Everyday": ("score", "run", "compare", "report", "check", "doctor", "list"),
    "Data": ("reference", "subsets", "curate", "weights"),
    "Advanced": ("sample", "measure", "evaluate", "status", "runs", "cache", "leaderboard", "power", "votes", "train"),
}
"""Panel of the help → its commands, in their order."""
ANYWHERE = ("--quiet", "-q", "--debug")
"""Options of the program itself that may also stand after the name of a command."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which `kill`, Slurm and Kubernetes send: it stops a command in the same way as Ctrl-C."""

    exit_code = 143


class HungUp(Terminated):
    """SIGHUP, which a terminal sends when it is closed, and ssh when its connection is lost."""

    exit_code = 129


_STOPPED_BY = {signal.SIGTERM: Terminated, signal.SIGHUP: HungUp}


class Program(TyperGroup):
    """The commands in the order of PANELS. Ctrl-C, SIGTERM and SIGHUP end them with a sentence and their exit code."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        panels = {name: panel for panel, names in PANELS.items() for name in names}
        for name, command in self.commands.items():
            command.rich_help_panel = panels.get(name, "Advanced")  # type: ignore[attr-defined]

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, panel by panel."""
        ordered = [name for names in PANELS.values() for name in names if name in self.commands]
        return [*ordered, *(name for name in self.commands if name not in ordered)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words, with the options of ANYWHERE moved to the front."""
        end = args.index("--") if "--" in args else len(args)
        front = [word for word in args[:end] if word in ANYWHERE]
        return super().parse_args(ctx, [*front, *(word for word in args[:end] if word not in ANYWHERE), *args[end:]])

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            with _terminated_in_order():
                return super().invoke(ctx)
        except (KeyboardInterrupt, Exception) as error:
            if (stop := _stop_behind(error)) is None:
                raise
            print_error(" ".join(["Stopped.", *getattr(stop, "__notes__", ())]))
            raise typer.Exit(stop.exit_code if isinstance(stop, Terminated) else 130) from None


def _stop_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The stop that an error is, or that led to it: Python wraps one that comes while a class is made, as in an
    import.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


@contextlib.contextmanager
def _terminated_in_order() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM and SIGHUP, unless whoever runs this process handles or ignores the signal.

    A closed terminal sends SIGHUP more than once, so that the later ones are ignored: the command is ending.
    """

    def stop(number: int, _: object) -> None:
        if number == signal.SIGHUP:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            _leave_closed_terminal()
        raise _STOPPED_BY[signal.Signals(number)]

    main = threading.current_thread() is threading.main_thread()  # only that one may set handlers
    ours = [one for one in _STOPPED_BY if main and signal.getsignal(one) is signal.SIG_DFL]
    for one in ours:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one in ours:
            if signal.getsignal(one) is stop:
                signal.signal(one, signal.SIG_DFL)


def _leave_closed_terminal() -> None:
    """Send to nowhere what would be printed on a closed terminal, where printing is an error."""
    for stream in {1, 2, results_fd()}:
        try:
            termios.tcgetattr(stream)
        except termios.error as error:
            if error.args[0] == errno.EIO:  # a file or a pipe gives ENOTTY
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream)
                os.close(nowhere)


class OneValueEach(TyperCommand):
    """A command that refuses two different values of an option that takes one, where the last would silently win, and
    an empty value, which looks like an option that was not given, or as a path like the current folder.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after the command's name."""
        if not ctx.resilient_parsing:
            self._check_values(ctx, args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with results_apart():
            return super().invoke(ctx)

    def _check_values(self, ctx: Any, args: list[str]) -> None:
        collecting = copy.copy(self)
        collecting.params = [copy.copy(one) for one in self.params]
        named = [one for one in collecting.params if isinstance(one, TyperOption)]
        single = [one for one in named if not (one.multiple or one.is_flag or one.count)]
        for one in single:
            one.multiple = True
        given, _, _ = collecting.make_parser(ctx).parse_args([*args])
        for one in single:
            if len(values := [*dict.fromkeys(given.get(one.name) or ())]) > 1:
                option = max(one.opts, key=len)
                ctx.fail(f"{option} takes one value, but was given {' and '.join(map(repr, values))}; give it once")
        paths = {name for name, kind in typing.get_type_hints(self.callback).items() if "Path" in str(kind)}
        for one in collecting.params:
            word, values = max(one.opts, key=len), given.get(one.name)
            empty = "" in (values if isinstance(values, list | tuple) else [values])
            if empty and one.name in paths:
                ctx.fail(f"{word} is empty; write . for the current folder")
            if empty and isinstance(one, TyperOption):
                ctx.fail(f"{word}: a value is empty; name one, or leave the option out")


_Function = TypeVar("_Function", bound=Callable[..., Any])


class Group(typer.Typer):
    """A group of commands that are `OneValueEach`."""

    def command(self, *name: Any, **settings: Any) -> Callable[[_Function], _Function]:
        """Decorate the function of a command."""
        return super().command(*name, **{"cls": OneValueEach, **settings})


app = Group(
    cls=Program,
    help="Evaluate text-to-video and text-to-audio-video models, with numbers that can be defended.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
reference_app = Group(help="Reference statistics: what models are measured against.", no_args_is_help=True)
weights_app = Group(help="Third-party weights: name, source, sha256, licence.", no_args_is_help=True)
app.add_typer(reference_app, name="reference")
app.add_typer(weights_app, name="weights")
train_app = Group(help="Train AVFullDiT: examples, towers, and the two arms.", no_args_is_help=True)
app.add_typer(train_app, name="train")
runs_app = Group(help="Run folders: merge shards, copy to and from object storage.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")
cache_app = Group(help="The features cache, which runs and machines share.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")
subsets_app = Group(help="Subsets: the prompts that models are given.", no_args_is_help=True)
app.add_typer(subsets_app, name="subsets")


def _show_version(asked: bool) -> None:
    if asked:
        from avbench.core.version import __version__

        print_line(f"avbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version and exit.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print results and errors only: no progress, no notes.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
) -> None:
    """Apply the options that every command takes."""
    keep_quiet(quiet)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit. An error is printed as one sentence; with `--debug` the traceback comes first.

    Exit codes: 1 if a command did not succeed, 2 for a user's mistake or a file that cannot be read or written, 70
    for a fault of avbench, 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.
    """
    from avbench.cli.steps import CONSOLE

    CONSOLE.notes.clear()
    os.environ.setdefault("VECLIB_MAXIMUM_THREADS", "1")  # for numpy on macOS, which reads it when it is imported
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # signs that its encoding lacks, as stderr shows them
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    try:
        code = app(words, prog_name="avbench", standalone_mode=False)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the help has been printed
            sys.exit(2)
        code, sentence = exit_code_and_message(error)
        if type(error).__name__ == "NoSuchOption" and (path := _path_like_an_option(words)):
            sentence = f"{path} is read as an option, because it begins with '-'; write ./{path} for the path"
        if "--debug" in words:
            import traceback

            print_error(traceback.format_exc())
        print_error(f"avbench: {sentence}")
    sys.exit(code if isinstance(code, int) else 0)


def exit_code_and_message(error: Exception) -> tuple[int, str]:
    """Return the exit code and the sentence for an error."""
    from avbench.core import InputError, kind_and_first_line

    if isinstance(error, InputError):
        return 2, str(error)
    if message := getattr(error, "format_message", None):  # typer has its own copy of click's classes
        command = getattr(getattr(error, "ctx", None), "command_path", "avbench")
        return 2, f"{_sentence(message())} (`{command} -h` shows what it takes)"
    if isinstance(error, OSError):
        return 2, ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
    if isinstance(error, ImportError) and _NO_LIBRARY in str(error):
        library = str(error).partition(":")[0]
        return 2, f"the system's library {library} is missing; {_LIBRARIES_OF_OPENCV}"
    where = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return 70, f"{kind_and_first_line(error)}{where}: {_FAULT}"


def _path_like_an_option(words: Sequence[str]) -> str | None:
    """The first word that begins as an option does and is a path that exists."""
    from pathlib import Path

    return next((word for word in words if word.startswith("-") and Path(word).exists()), None)


def _sentence(message: str) -> str:
    return " ".join(message.split()).removesuffix(".")


_NO_LIBRARY = "cannot open shared object file"
_LIBRARIES_OF_OPENCV = "those that OpenCV needs come with `apt-get install libgl1 libglib2.0-0` on Debian and Ubuntu"
_FAULT = (
    "this was not foreseen, and is a fault of avbench. Please report it with the output of the same command "
    "with --debug"
)
