"""Runs tasks in Ray actors, on this machine or on a cluster: the second implementation of `worker_pool.Pool`.

An actor is a long-lived process with one CPU core, or one GPU, and one thread. It builds its worker function once,
which holds a model or the networks, and has one call in flight. Only calls and their results cross the wire; clips stay
in files, so every machine must see the same folders, unless the work has a mirror. Ray restarts an actor that dies
while it is idle. If one dies during a call, this process starts another and decides what happens to the task, so
nothing is repeated unknown to it.
"""

import importlib.metadata
import importlib.util
import logging
import math
import os
import platform
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avbench.core import InputError, first_line
from avbench.core.version import __version__
from avbench.storage.workers.forks import ends_forks
from avbench.storage.workers.worker_pool import (
    Build,
    Result,
    Task,
    WorkerCrashed,
    WorkerTimedOut,
    default_workers,
    one_thread,
)

_TRIES = 2
"""After so many deaths of its actor a task is given up."""
_LOADS = 6
"""After so many deaths per actor, in a row and while they loaded, the work is given up."""
_CONNECT_SECONDS = 10.0
_OBJECT_STORE_BYTES = 80 * 2**20
"""Ray's least: paths and rows are small."""
_COMPARED = ("av", "numpy", "opencv-python", "scipy", "torch", "torchvision")
"""Packages whose version can change a number."""


@dataclass(frozen=True)
class RayActors:
    """Ray actors as workers (``pip install "avbench[ray]"``).

    Raises:
        InputError: Ray is not installed, a value is wrong, or nothing answers at the address.
    """

    count: int | None = None
    """How many; by default one per GPU of the cluster or, without GPUs, one per core."""
    address: str | None = None
    """Of a cluster: ``host:port``, or ``auto`` for the one that this machine belongs to. By default that of the
    environment variable ``RAY_ADDRESS``, else Ray is started on this machine for as long as this process runs."""
    item_seconds: float | None = None
    """How long a call may take; an actor that takes longer is killed, and its item is named."""
    device: str = "auto"
    """``auto``: each actor gets a GPU if the cluster has any; ``cuda``: it must have; ``cpu``: none gets one."""

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            msg = 'the engine ray needs the package ray: pip install "avbench[ray]"'
            raise InputError(msg)
        if self.count == 0:
            msg = "0 workers: the engine ray needs at least one actor"
            raise InputError(msg)
        if self.item_seconds is not None and not 0 < self.item_seconds < math.inf:
            msg = f"a time limit of {self.item_seconds:g} s is none; give a number of seconds above 0"
            raise InputError(msg)
        if self.device.startswith("cuda:"):
            msg = f"device {self.device!r}: Ray chooses the GPU of each actor; write cuda, auto or cpu"
            raise InputError(msg)
        _require_listening(self._address)

    @property
    def _address(self) -> str:
        return self.address or os.environ.get("RAY_ADDRESS") or "local"

    def connect(self) -> None:
        """Start Ray or connect to the cluster, unless this process is connected.

        Raises:
            InputError: Ray refuses, or the cluster has no GPU and one is needed.
        """
        import ray

        if not ray.is_initialized():
            address, own = self._address, {}
            if address == "local":
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                cores = max(default_workers(), self.count or 1)
                own = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
            handler = signal.getsignal(signal.SIGTERM)
            try:
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
            except (ConnectionError, ImportError, RuntimeError, ValueError) as error:
                token = "; if it asks for a token, as clusters of Ray 2.60 do, set RAY_AUTH_MODE=token"
                refused = isinstance(error, ConnectionError) and address != "auto"
                msg = f"Ray at {address!r} cannot be used: {first_line(error)}{token if refused else ''}"
                raise InputError(msg) from error
            if callable(handler) and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray has put its own in the place of our caller's
        if self.device == "cuda" and not self.gpus():
            msg = "device 'cuda' is not there: no machine of the Ray cluster has a GPU"
            raise InputError(msg)

    def map_unordered(self, build: Build[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Yield (task, result) as each task is done, in any order; a `WorkerCrashed` stands for a result.

        A task whose actor dies is given to another one, once; one that takes too long is not tried again.

        Raises:
            InputError: the actors cannot load. Any other exception in an actor is raised here too.
        """
        import ray

        if not tasks:
            return iter(())
        self.connect()
        most = self.gpus() or int(ray.cluster_resources().get("CPU", 1))
        return _Crew(self, build).done(tasks, min(self.count or most, most, len(tasks)), _TRIES)

    def run_isolated(self, build: Build[Task, Result], task: Task) -> Result | WorkerCrashed:
        """Run one task in an actor of its own, once. A crash is returned as `WorkerCrashed`, not raised."""
        self.connect()
        ((_, result),) = _Crew(self, build).done([task], 1, tries=1)
        return result

    def gpus(self) -> int:
        """How many GPUs of the cluster are used."""
        import ray

        return 0 if self.device == "cpu" else int(ray.cluster_resources().get("GPU", 0))


@dataclass(eq=False)
class _Slot:
    """An actor, and the call that it has in flight."""

    actor: Any
    call: Any
    """None if it is idle."""
    number: int | None = None
    """Of the task in flight; None while it loads, or is idle."""
    deadline: float = math.inf


@dataclass
class _Crew:
    """The actors of one job."""

    how: RayActors
    build: Build[Any, Any]
    slots: list[_Slot] = field(default_factory=list)
    lost_loads: int = 0
    """How many actors in a row died while they loaded."""

    def done(self, tasks: Sequence[Any], count: int, tries: int) -> Iterator[tuple[Any, Any]]:
        """Yield each task with its result, or with the `WorkerCrashed` of its last try."""
        waiting, deaths, left = deque(range(len(tasks))), Counter[int](), len(tasks)
        try:
            for _ in range(count):
                self._hire()
            while left:
                for slot in [one for one in self.slots if one.call is None][: len(waiting)]:
                    self._give(slot, waiting.popleft(), tasks)
                slot, result = self._ended()
                number, slot.number = slot.number, None
                crashed = isinstance(result, WorkerCrashed)
                if crashed:  # its core or GPU must be free, because we may be asked to `run_isolated` meanwhile
                    self._dismiss(slot)
                if number is None:
                    self.lost_loads = self.lost_loads + 1 if crashed else 0
                    if crashed:
                        self._require_hope(result, _LOADS * count)
                        self._hire()
                    continue
                deaths[number] += crashed
                if crashed and deaths[number] < tries and not isinstance(result, WorkerTimedOut):
                    waiting.appendleft(number)
                    self._hire()
                    continue
                left -= 1
                yield tasks[number], result
                if crashed and waiting:
                    self._hire()
        finally:
            for slot in [*self.slots]:
                self._dismiss(slot)

    def _hire(self) -> None:
        """Start another actor, which begins to load."""
        import ray

        here = Surroundings(str(Path.cwd()), tuple(sys.path), _settings(), _versions())
        one_gpu = min(1, self.how.gpus())
        kind = ray.remote(num_cpus=1, num_gpus=one_gpu, max_restarts=-1)(Actor)
        actor: Any = kind.remote(here)
        self.slots.append(_Slot(actor, actor.load.remote(self.build)))

    def _dismiss(self, slot: _Slot) -> None:
        import ray

        ray.kill(slot.actor, no_restart=True)
        self.slots.remove(slot)

    def _require_hope(self, crash: WorkerCrashed, most: int) -> None:
        """Raise InputError if too many actors died while they loaded."""
        if self.lost_loads >= most:
            msg = (
                f"{self.lost_loads} Ray actors in a row died while they loaded; their machines need avbench, and "
                f"memory for the model or the networks ({first_line(crash.__cause__ or crash)})"
            )
            raise InputError(msg) from crash.__cause__

    def _give(self, slot: _Slot, number: int, tasks: Sequence[Any]) -> None:
        slot.number, slot.call = number, slot.actor.call.remote(self.build, tasks[number])
        slot.deadline = time.monotonic() + (self.how.item_seconds or math.inf)

    def _ended(self) -> tuple[_Slot, Any]:
        """Wait until a call has ended or taken too long; return its slot, and its result or a `WorkerCrashed`."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        calls = {slot.call: slot for slot in self.slots if slot.call is not None}
        overdue = min(calls.values(), key=lambda slot: slot.deadline)
        seconds = max(0.0, overdue.deadline - time.monotonic())
        ready, _ = ray.wait([*calls], timeout=None if seconds == math.inf else seconds)
        if not ready:
            return overdue, WorkerTimedOut(self.how.item_seconds or 0.0)
        slot = calls[ready[0]]
        slot.call = None
        try:
            return slot, ray.get(ready[0])
        except RayTaskError as error:  # the task raised it
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except RayError as error:  # the process or its machine died
            crash = WorkerCrashed()
            crash.__cause__ = error
            return slot, crash


@dataclass(frozen=True)
class Surroundings:
    """What an actor takes over from the process that asks."""

    folder: str
    """The working folder: relative paths mean the same everywhere."""
    path: tuple[str, ...]
    """Where Python looks for modules."""
    settings: Mapping[str, str]
    """Environment variables of avbench."""
    versions: Mapping[str, str]
    """Of the packages that decide numbers."""


class Actor:
    """Lives in a process of Ray, and holds one worker function."""

    def __init__(self, here: Surroundings) -> None:
        """Take over the surroundings; `load` says what is wrong with them, since Ray would restart for ever."""
        self._here = here
        self._work: Callable[[Any], Any] | None = None
        one_thread()
        os.environ.update(here.settings)
        sys.path += [place for place in here.path if place not in sys.path]

    def load(self, build: Build[Any, Any]) -> None:
        """Build the worker function.

        Raises:
            InputError: this machine lacks the working folder, has other versions, or cannot build.
        """
        host = platform.node()
        try:
            os.chdir(self._here.folder)
        except OSError as error:
            msg = (
                f"the machine {host} of the Ray cluster cannot open the folder {self._here.folder} ({error.strerror}): "
                "give the command in a folder that all machines share"
            )
            raise InputError(msg) from None
        versions = _versions()
        if other := [name for name, one in self._here.versions.items() if versions.get(name) != one]:
            listed = ", ".join(f"{name} {versions.get(name)} instead of {self._here.versions[name]}" for name in other)
            msg = f"the machine {host} of the Ray cluster has {listed}: install the same versions on all machines"
            raise InputError(msg)
        try:
            self._work = build()
        except InputError as error:
            msg = f"{error} (on the machine {host} of the Ray cluster)"
            raise InputError(msg) from error

    def call(self, build: Build[Any, Any], task: Any) -> Any:
        """Do one task."""
        if self._work is None:  # Ray restarted the actor after it had loaded
            self.load(build)
        assert self._work is not None
        with ends_forks():
            return self._work(task)


def _require_listening(address: str) -> None:
    """Raise InputError if nothing answers at an address. Ray itself would try for minutes."""
    if address in ("local", "auto"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        msg = f"the Ray address {address!r} is none: write host:port, such as 10.0.0.1:6379, or auto"
        raise InputError(msg)
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        msg = (
            f"no Ray cluster answers at {address!r} ({first_line(error)}): start one with `ray start --head` and give "
            "the address that it prints"
        )
        raise InputError(msg) from None


def _settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AVBENCH_")}


def _versions() -> dict[str, str]:
    found = {"avbench": __version__, "python": platform.python_version()}
    for package in _COMPARED:
        try:
            found[package] = importlib.metadata.version(package).partition("+")[0]  # the rest is of the device
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
