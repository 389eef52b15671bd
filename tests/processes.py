"""Looks at processes, and waits for what they do."""

import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

_PROCESSES = Path("/proc")
FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
"""For tests that fork: Python 3.12 and later warn of the thread that pytest-xdist has."""


def wait_until(true, seconds=120):
    stop = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < stop, "it never happened"
        time.sleep(0.02)


def written(path):
    """The text of a file, once there is some."""
    return path.exists() and path.read_text().strip()


def in_time(call, seconds=300):
    """The result of a call that could wait without end."""
    made = Future()

    def run():
        try:
            made.set_result(call())
        except BaseException as error:
            made.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return made.result(seconds)


def _all_processes():
    if not (_PROCESSES / "self").exists():
        pytest.skip("it looks at processes in /proc, which Linux has")
    return _PROCESSES.glob("[0-9]*")


def children_named(name, parent):
    """Processes below a process whose command begins with a name."""
    found = []
    for place in _all_processes():
        try:
            above = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            title = (place / "cmdline").read_bytes()
        except OSError:
            continue
        found.append((int(place.name), above, title.decode(errors="replace")))
    below, size = {parent}, 0
    while len(below) > size:
        size = len(below)
        below |= {pid for pid, above, _ in found if above in below}
    return [pid for pid, _, title in found if pid in below and title.startswith(name)]


def processes_of(session):
    """Processes of a session that run; those that ended and were not waited for are left out."""
    found = []
    for place in _all_processes():
        try:
            state, _, _, its_session = (place / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(place.name))
    return found
