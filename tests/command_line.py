"""Runs `avbench` in the test's own process: nothing is imported again, and what it printed is at hand."""

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from avbench import cli


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Both streams, first what was printed to stdout."""
        return self.stdout + self.stderr


def run_avbench(*words: object, code: int | None = 0) -> Finished:
    """Run `avbench WORDS…` through `cli.main`, as the program itself does.

    Args:
        *words: the command line after `avbench`; anything else than text is turned into it.
        code: the exit code that it must end with; None allows any.
    """
    stdout, stderr = io.StringIO(), io.StringIO()
    exit_code: object = 0
    with (
        mock.patch.object(sys, "argv", ["avbench", *map(str, words)]),
        mock.patch.object(cli.steps.CONSOLE, "notes", []),  # a program begins having said nothing
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            cli.main()
        except SystemExit as ended:
            exit_code = ended.code or 0
    assert isinstance(exit_code, int), exit_code
    done = Finished(exit_code, stdout.getvalue(), stderr.getvalue())
    assert code is None or done.exit_code == code, f"exit code {done.exit_code}: {done.output}"
    return done
