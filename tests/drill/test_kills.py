"""Kills, full disks, torn writes, bit flips and two processes on one folder: nothing is lost, and no number moves.

Every command runs in a process that is forked from this one, so that it starts at once. An undisturbed run says what
is right. docs/reliability.md says what was found; `pytest -m drill tests/drill/test_kills.py -rP` repeats it (seeded).
"""

import errno
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from made_runs import evaluated, made_run
from processes import FORKS

from avbench.cli import main
from avbench.comparison import score_table
from avbench.core import InputError
from avbench.features.current import current_rows
from avbench.features.protocols import protocol_of
from avbench.metrics.evaluate import chosen_metrics, evaluate
from avbench.storage.runs.folder import RunFolder
from avbench.storage.workers import worker_pool

pytestmark = [pytest.mark.drill, FORKS]

SECONDS = 240
"""After which a command counts as one that hangs."""
_METRICS = ("--metric", "onset_rate", "--metric", "motion_amount")
_TOY = ("--subset", "toy-object-contact", "--limit", "2", "--workers", "0")
STEPS = {
    "sample": ("sample", "toyworld:", *_TOY, "--out", "o"),
    "measure": ("measure", "o/toyworld", *_METRICS, "--workers", "0"),
    "evaluate": ("evaluate", "o/toyworld", *_METRICS),
    "run": ("run", "toyworld:", "toyworld:flickering", *_TOY, *_METRICS, "--out", "both"),
    "compare": ("compare", "both/toyworld", "both/toyworld-flickering"),
    "report": ("report", "both/toyworld", "both/toyworld-flickering", "--out", "page", "--workers", "0"),
    "reference": (
        *("reference", "build", "o/toyworld/clips", "--licence", "CC0-1.0", "--name", "toy", "--workers", "0"),
        *(*_METRICS, "--work", "work", "--out", "refs"),
    ),
    "baseline": ("check", "o/toyworld", "--baseline", "b.zip", "--update", "--reason", "first"),
}
"""Every verb that writes, in the order of a user; each begins where those before it ended."""
KILLS = {
    "sample": 18,
    "measure": 18,
    "evaluate": 14,
    "run": 16,
    "compare": 4,
    "report": 10,
    "reference": 12,
    "baseline": 8,
}
FULL_DISKS = 8
_TIMED = ("seconds", "peak_memory_mib", "peak_gpu_memory_mib", "crc32")
"""Fields of samples.jsonl that are of the making, not of the clip."""


@dataclass
class Ended:
    """How a command ended: its exit code (negative: a signal), what it said, and whether it was stopped as hanging."""

    code: int
    output: str


def command(words, place, before=lambda: None):
    """The number of a forked process that runs avbench in a folder; `before` is called in it first."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.setsid()
        os.chdir(place)
        log = os.open(f"{place}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        warnings.resetwarnings()
        sys.argv = ["avbench", *words, "--debug"]
        before()
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child, place):
    """Wait for a command."""
    stop = time.monotonic() + SECONDS
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > stop:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail(f"it hangs: {place}")
        time.sleep(0.002)
    return Ended(os.waitstatus_to_exitcode(found[1]), Path(f"{place}.log").read_text(errors="replace"))


def run(words, place, before=lambda: None):
    return ended(command(words, place, before), place)


def finish(step, place):
    """Give the command of a step again. A baseline that is there is whole; it is not updated twice."""
    if step != "baseline" or not (place / "b.zip").exists():
        end = run(STEPS[step], place)
        assert end.code == 0, end.output


def writes_under(place, count):
    """Calls `count` before each opening to write, renaming or removing below a folder."""

    def look(event, arguments):
        writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writing or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            name = str(Path(os.fsdecode(arguments[0])).absolute()) if isinstance(arguments[0], str | bytes) else ""
            if name.startswith(f"{place}/"):
                count()

    sys.addaudithook(look)


def killed_at_write(place, number):
    """The process is killed before its write of this number."""
    numbers = itertools.count(1)
    writes_under(place, lambda: next(numbers) == number and os.kill(os.getpid(), signal.SIGKILL))


def content(path):
    """What of a file must be the same; a run of finished clips names their folder by its absolute path."""
    if path.name in ("run.json", "card.json") and '"folder"' in (text := path.read_text()):
        plain = json.loads(text)
        plain["settings"].pop("folder", None)
        if path.name == "run.json":
            del plain["sha256"]  # of the same fields, the folder among them
        return plain
    if path.name != "samples.jsonl":
        return path.read_bytes()
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [{name: one for name, one in line.items() if name not in _TIMED} for line in lines]


def files(place):
    """The content of every file below a folder."""
    found = sorted(path for path in place.rglob("*") if path.is_file() and path.name not in (".lock", ".progress.json"))
    return {path.relative_to(place).as_posix(): content(path) for path in found}


def differing(found, right):
    """The names of files that differ."""
    return sorted(name for name in found.keys() | right.keys() if found.get(name) != right.get(name))


@dataclass
class Calm:
    """An undisturbed run: the folder before each step, what is in it after, and how long the step took."""

    before: dict[str, Path]
    after: dict[str, dict]
    seconds: dict[str, float]
    writes: dict[str, int]


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    worker_pool.one_thread()
    place = tmp_path_factory.mktemp("calm")
    now = place / "now"
    now.mkdir()
    (place / "warm").mkdir()
    found = Calm({}, {}, {}, {})
    for name, words in STEPS.items():
        found.before[name] = place / name
        shutil.copytree(now, place / name)
        counted = place / f"{name}.writes"
        counted.touch()
        number = os.open(counted, os.O_WRONLY | os.O_APPEND)
        started = time.monotonic()
        end = run(words, now, lambda number=number: writes_under(now, lambda: os.write(number, b".")))
        found.seconds[name] = time.monotonic() - started
        os.close(number)
        assert end.code == 0, end.output
        found.after[name], found.writes[name] = files(now), counted.stat().st_size
    return found


@pytest.mark.parametrize("step", STEPS)
def test_kills(calm, step, tmp_path):
    """Killed once to three times, at random moments or before a write, the same command ends as if undisturbed."""
    rng, kills, rounds = random.Random(step), 0, 0
    while kills < KILLS[step]:
        rounds += 1
        assert rounds < 10 * KILLS[step], f"{kills} kills hit"
        place = tmp_path / f"{rounds}"
        shutil.copytree(calm.before[step], place)
        for _ in range(1 if step == "baseline" else rng.randrange(1, 4)):
            if rng.random() < 0.5 and calm.writes[step]:
                at = rng.randrange(1, calm.writes[step] + 1)
                end = run(STEPS[step], place, lambda place=place, at=at: killed_at_write(place, at))
            else:
                child = command(STEPS[step], place)
                time.sleep(rng.uniform(0, calm.seconds[step]))
                os.kill(child, signal.SIGKILL)  # one that has ended is not waited for yet, so its number is its own
                end = ended(child, place)
            kills += end.code == -signal.SIGKILL
            assert end.code in (0, -signal.SIGKILL), end.output
        finish(step, place)
        assert not differing(files(place), calm.after[step]), (step, rounds)
        shutil.rmtree(place)
    print(f"{step}: {kills} kills in {rounds} rounds, every one identical")  # noqa: T201


@pytest.fixture
def small_disk(tmp_path):
    """Makes a folder whose disk has room for so many bytes more, and a function that gives it room for all.

    It is a file system in memory where this process may mount one; else the largest size that a file may have.
    """
    place, made = tmp_path / "disk", []
    place.mkdir()

    def mount(*options):
        return subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(place)], capture_output=True).returncode

    def fill(source, room):
        real = mount("-o", "size=1g") == 0
        if real:
            made.append(place)
        shutil.copytree(source, place, dirs_exist_ok=True)
        if not real:
            return lambda: (
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY)),
            )
        used = shutil.disk_usage(place).used
        mount("-o", f"remount,size={max(used + room, 4096)}")
        return lambda: None

    yield place, fill, lambda: made and mount("-o", "remount,size=1g")
    for one in made:
        subprocess.run(["umount", "-l", str(one)], check=False)


@pytest.mark.parametrize("level", range(FULL_DISKS))
@pytest.mark.parametrize("step", ["sample", "measure", "evaluate", "reference", "baseline", "report"])
def test_full_disks(calm, step, level, small_disk):
    """A disk that fills up is a sentence; with room again the same command ends as if undisturbed."""
    place, fill, more_room = small_disk
    grown = {name: one for name, one in calm.after[step].items() if name not in files(calm.before[step])}
    size = sum(len(one) if isinstance(one, bytes) else 400 * len(one) for one in grown.values())
    end = run(STEPS[step], place, fill(calm.before[step], int(size * level / FULL_DISKS)))
    assert end.code in ((0, 1, 2) if level else (1, 2)), end.output
    more_room()
    if end.code:
        said = (os.strerror(errno.ENOSPC), os.strerror(errno.EFBIG), "the disk is full")
        assert any(one.lower() in end.output.lower() for one in said), end.output
    finish(step, place)
    assert not differing(files(place), calm.after[step])


def test_a_second_process_on_a_folder_is_refused_and_harms_nothing(calm, tmp_path):
    """Two of the same command at once, at 8 distances: each ends well or in a sentence, and the result is the same."""
    outcomes = Counter()
    for number, step in itertools.product(range(4), ("sample", "measure")):
        place = tmp_path / f"{step}{number}"
        shutil.copytree(calm.before[step], place)
        first = command(STEPS[step], place)
        time.sleep(calm.seconds[step] * number / 4)
        second = command(STEPS[step], place)
        ends = [ended(one, place).code for one in (first, second)]
        assert set(ends) <= {0, 2}, Path(f"{place}.log").read_text()
        outcomes[tuple(ends)] += 1
        run(STEPS[step], place)
        assert not differing(files(place), calm.after[step])
    print(dict(outcomes))  # noqa: T201
    assert outcomes[0, 2] + outcomes[2, 0]


@pytest.fixture
def small(tmp_path):
    """An evaluated run without clips."""
    return evaluated(made_run(tmp_path / "run", count=2, names=["toy-control"]))


def test_a_line_torn_at_every_byte_is_written_again(small):
    """Whatever part of the last line reached the disk, the rows before it stay, and the next line follows them."""
    protocol, tried = protocol_of("onsets"), 0
    (path,) = small.path.glob("features/onsets*/rows.jsonl")
    good, rows = path.read_bytes(), small.rows(protocol)
    begin = good[:-1].rfind(b"\n") + 1
    last = list(rows.values())[-1]
    for end in range(begin, len(good)):
        path.write_bytes(good[:end])
        assert small.rows(protocol).keys() == rows.keys() - {last.key}
        small.add_row(protocol, last)
        assert path.read_bytes() == good
        tried += 1
    for size in range(1, len(good) - begin):  # the size of the file was kept, and its end is zeros
        path.write_bytes(good[:-size] + bytes(size))
        assert small.rows(protocol).keys() == rows.keys() - {last.key}
        tried += 1
    print(f"{tried} torn lines, every one dropped and written again")  # noqa: T201


def numbers(folder):
    """Every number of a run: rows, the scores that it holds and those that are computed anew, values per clip."""
    rows = {name: current_rows(folder, name) for name in ("lpips-alex", "onsets")}
    found = {name: {key: dict(row.values or {}) for key, row in of.items()} for name, of in rows.items()}
    kept = folder.scores()
    again = evaluate(folder, chosen_metrics(["lpips_consecutive", "onset_rate"]))
    return found, kept, again, {where: one.to_dict() for where, one in score_table.clip_values(folder).items()}


def test_bit_flips_move_no_number(small, tmp_path):
    """One bit of one file of a run flips: it is refused, or every number is the same."""
    right = tmp_path / "right"
    rng, outcomes = random.Random(0), Counter()
    shutil.copytree(small.path, right)
    was = numbers(small)
    names = sorted(
        path.relative_to(right)
        for path in right.rglob("*")
        if path.is_file() and path.name not in (".lock", ".progress.json")
    )
    for number in range(240):
        name = names[number % len(names)]
        bad = bytearray((right / name).read_bytes())
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        shutil.rmtree(small.path)
        shutil.copytree(right, small.path)
        (small.path / name).write_bytes(bad)
        try:
            now = numbers(RunFolder(small.path))
        except InputError:
            outcomes["refused"] += 1
        else:
            assert now == was, name
            outcomes["the same"] += 1
    print(f"240 bit flips: {dict(outcomes)}")  # noqa: T201


def test_every_bit_of_a_line_counts(small):
    """No flipped bit of a line is taken."""
    (path,) = small.path.glob("features/onsets*/rows.jsonl")
    line = path.read_bytes().splitlines()[0]
    for at, bit in itertools.product(range(len(line)), range(8)):
        bad = bytearray(path.read_bytes())
        bad[at] ^= 1 << bit
        path.write_bytes(bad)
        with pytest.raises(InputError):
            list(small.stream_rows(protocol_of("onsets")))
        bad[at] ^= 1 << bit
        path.write_bytes(bad)
