"""Runs the command line in this process."""

import contextlib
import io
from dataclasses import dataclass

from avbench import cli


@dataclass(frozen=True)
class Result:
    exit_code: int
    stdout: str
    stderr: str


def run_avbench(*args):
    """What `avbench ARGS…` prints, and its exit code."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main([str(one) for one in args])
        except SystemExit as ended:
            code = ended.code or 0
    return Result(code, out.getvalue(), err.getvalue())
