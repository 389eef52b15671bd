"""The command line: its parts, and how errors become sentences and exit codes."""

import sys
from typing import TYPE_CHECKING

import typer

from avbench.cli.printing import say

if TYPE_CHECKING:
    pass

app = typer.Typer(
    help="Evaluate text-to-video and text-to-audio-video models, with numbers that can be defended. "
    "Any command takes --debug, which prints the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
reference_app = typer.Typer(help="Reference statistics: what models are measured against.", no_args_is_help=True)
weights_app = typer.Typer(help="Third-party weights: name, source, sha256, licence.", no_args_is_help=True)
app.add_typer(reference_app, name="reference")
app.add_typer(weights_app, name="weights")
train_app = typer.Typer(help="Train AVFullDiT: examples, towers, and the two arms.", no_args_is_help=True)
app.add_typer(train_app, name="train")
subsets_app = typer.Typer(help="Subsets: the prompts that are asked.", no_args_is_help=True)
app.add_typer(subsets_app, name="subsets")


def main() -> None:
    """Run the command line; what goes wrong is printed as a sentence, with `--debug` after its traceback.

    Exit codes: 2 for a user's mistake or a file that cannot be read or written, 70 for a fault of avbench.
    """
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    try:
        app()
    except Exception as error:
        code, sentence = exit_code_and_message(error)
        if debug:
            import traceback

            say(traceback.format_exc(), err=True)
        say(f"avbench: {sentence}", err=True)
        sys.exit(code)


def exit_code_and_message(error: Exception) -> tuple[int, str]:
    """Exit code and sentence of what went wrong."""
    from avbench.core import InputError, first_line

    if isinstance(error, InputError):
        return 2, str(error)
    if isinstance(error, OSError):
        return 2, ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
    where = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return 70, f"{type(error).__name__}: {first_line(error)}{where}: {_FAULT}"


_FAULT = (
    "this was not foreseen, and is a fault of avbench. Please report it with what the same command with --debug says"
)
