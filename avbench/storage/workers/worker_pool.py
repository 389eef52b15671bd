"""Runs tasks in this process or in several worker processes, one thread each, and survives workers that crash.

One thread per process is fastest for many clips on a CPU. It also makes results independent of the number of workers,
because sums are then always taken in the same order.
"""

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import queue
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from avbench.core import InputError, first_line
from avbench.storage.workers.forks import ends_forks

Task = TypeVar("Task")
Result = TypeVar("Result")
Build = Callable[[], Callable[[Task], Result]]
"""Makes the function that does a task."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Environment variables that limit the threads of numeric libraries; the last is that of macOS."""
_HIDING, _ASKING = threading.Lock(), threading.Lock()
_TUNABLES = "GLIBC_TUNABLES"

_worker: Callable[[Any], Any] | None = None
most_memory_mib = 0.0
"""Peak memory of the largest worker process so far."""

_SLOW_IMPORTS = ("avbench.features.measure", "cv2", "scipy.signal", "torch")
_CAUSES = "killed for its memory, or a crash in compiled code"


class WorkerCrashed(Exception):
    """Returned instead of a result: the worker process that had the task died."""

    def __init__(self, doing: str = "making") -> None:
        super().__init__(f"the process that was {doing} it died, twice ({_CAUSES})")


_OVERDUE = "it was stopped after the time limit"


CRASHED = str(WorkerCrashed("measuring"))
"""The sentence that replaces a value after a crash."""


class WorkerTimedOut(WorkerCrashed):
    """Returned instead of a result: the task took longer than its time limit, so its worker was killed."""

    def __init__(self, seconds: float) -> None:
        Exception.__init__(self, f"{_OVERDUE} of {seconds:g} s")


NOT_MEASURED = (CRASHED, _OVERDUE)
"""How a sentence begins that stands in place of a value because of the worker, not because of the clip."""


class Pool(Protocol):
    """Where tasks are done. `LocalPool` has worker processes of this machine, `ray_actors.RayActors` those of Ray.

    Workers survive crashes of each other, and each is limited to one thread. `build` makes the worker function, once
    in each worker; it, the tasks and the results must be picklable.
    """

    def map_unordered(self, build: Build[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Yield (task, result) as each task is done, in any order; a `WorkerCrashed` stands for a result.

        An exception in a worker is raised here.
        """
        ...

    def run_isolated(self, build: Build[Task, Result], task: Task) -> Any:
        """Run one task in a worker of its own, once. A crash is returned as `WorkerCrashed`, not raised."""
        ...


def run_isolated(build: Build[Task, Result], task: Task) -> Result | WorkerCrashed:
    """Run one task in a process of its own. A crash is returned as `WorkerCrashed`, not raised."""
    try:
        with _pool(1) as pool:
            (future,) = _submitted(pool, build, [task])
            return _result(future)
    except BrokenProcessPool:
        return WorkerCrashed()


@dataclass(frozen=True)
class LocalPool:
    """Worker processes of this machine; with 0 of them, tasks are done in this process.

    There, and with one worker without `survive_crashes`, a task that crashes ends this process.
    """

    workers: int = 0
    threads: bool = False
    """Use threads of this process that share one worker function instead, for work that mostly waits."""
    keeps_settings: bool = False
    """In this process, leave torch the settings that the caller has made, such as autocast (see `default_settings`)."""
    survive_crashes: bool = True
    """After a crash, a task that crashes its worker in isolation twice yields `WorkerCrashed`, and the others are still
    done; otherwise a crash is an error."""
    imports: Sequence[str] = _SLOW_IMPORTS
    """Modules that are imported once for all workers of this program; its first workers decide."""

    def map_unordered(self, build: Build[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Yield (task, result) as each task is done, in any order.

        Raises:
            InputError: a worker process crashed, without `survive_crashes`; or the workers cannot be started.
        """
        count = min(self.workers, len(tasks))
        if self.threads and count > 1:
            yield from _in_threads(build(), tasks, count)
        elif self.threads or self.workers < 1 or (count <= 1 and not self.survive_crashes):
            yield from _in_this_process(build, tasks, self.keeps_settings)
        else:
            yield from self._in_processes(build, tasks)

    def _in_processes(self, build: Build[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        left = list(range(len(tasks)))
        while left:
            try:
                with _pool(min(self.workers, len(left)), self.imports) as pool:
                    futures = dict(zip(_submitted(pool, build, [tasks[number] for number in left]), left, strict=True))
                    for future in as_completed(futures):
                        number, result = futures.pop(future), _result(future)
                        left.remove(number)
                        yield tasks[number], result
            except BrokenProcessPool:
                if not self.survive_crashes:
                    msg = f"a worker process died ({_CAUSES}): give fewer workers (--workers), or more memory"
                    raise InputError(msg) from None
            # tasks start in order, so the one that crashed is among the first that are left
            suspects, left = left[: 2 * self.workers], left[2 * self.workers :]
            for number in suspects:
                alone = run_isolated(build, tasks[number])
                if isinstance(alone, WorkerCrashed):  # for the first time, if another task crashed in the pool
                    alone = run_isolated(build, tasks[number])
                yield tasks[number], alone

    run_isolated = staticmethod(run_isolated)


@dataclass(frozen=True)
class _Lasting:
    """A pool whose worker processes stay, with what they have built, from one call to the next.

    A crash of one ends them all, with BrokenProcessPool.
    """

    executor: ProcessPoolExecutor

    def map_unordered(self, build: Build[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Yield (task, result) as each task is done, in any order."""
        futures = dict(zip(_submitted(self.executor, build, tasks), tasks, strict=True))
        for future in as_completed(futures):
            yield futures.pop(future), _result(future)

    run_isolated = staticmethod(run_isolated)


@contextlib.contextmanager
def alongside(work: Callable[[Pool, threading.Event], None], workers: int) -> Iterator[None]:
    """Let a thread of this process do some work while the block runs, with worker processes that it keeps.

    When the block ends, the workers are killed in the middle of their tasks, and `work` must return as soon as its
    event is set. What it raises is dropped, so it must be work that is done again where it is missing.
    """
    stopped, ending = threading.Event(), threading.Lock()

    def end() -> None:
        with ending:
            _terminate(pool)

    def serve() -> None:
        with contextlib.suppress(Exception):
            work(_Lasting(pool), stopped)
        end()  # the tasks that an error left, not by cancelling them: Python's pool fails if it is ended meanwhile

    with _pool(workers) as pool:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            end()
            while thread.is_alive():
                thread.join(0.1)
                end()  # it may have started workers just now


def default_workers() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_this_process(
    build: Build[Task, Result], tasks: Sequence[Task], keeps_settings: bool
) -> Iterator[tuple[Task, Result]]:
    settings = contextlib.nullcontext if keeps_settings else default_settings
    with threads_restored():
        one_thread()
        with settings():
            work = build()
        for task in tasks:
            with ends_forks(), settings():
                result = work(task)
            yield task, result


def _submitted(
    pool: ProcessPoolExecutor, build: Build[Task, Result], tasks: Sequence[Task]
) -> list[Future[tuple[Result, float]]]:
    """Hand tasks to the workers of a pool, which starts them. Raises InputError where it cannot."""
    with _starting(), huge_pages(), _without_main(build, *tasks):
        return [pool.submit(_call, build, task) for task in tasks]


@contextlib.contextmanager
def huge_pages() -> Iterator[None]:
    """Programs started inside it ask Linux for huge pages of memory, which it may have or not.

    Networks and optical flow read large arrays again and again. With pages of 4 KiB a processor has to look up so many
    of them that it takes a tenth to a third longer. glibc reads the variable when a program starts, and only then.
    """
    with _ASKING:
        before = os.environ.get(_TUNABLES)
        os.environ[_TUNABLES] = ":".join(filter(None, ("glibc.malloc.hugetlb=1", before)))  # the user's counts
        try:
            yield
        finally:
            os.environ.pop(_TUNABLES) if before is None else os.environ.update({_TUNABLES: before})


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """What starts processes runs inside it. Raises InputError where they need more than this process may have.

    Python takes the first start for the program's choice of a start method, and refuses another one from then on: that
    is undone, so that a training script may still choose its own.
    """
    chosen = multiprocessing.get_start_method(allow_none=True)
    try:
        with _stops_held_back():
            yield
    except ChildProcessError as error:
        msg = (
            "this process was forked by one that had started worker processes, and Python lets it start no others: "
            "give workers=0 (--workers 0)"
        )
        raise InputError(msg) from error
    except (OSError, EOFError, RuntimeError) as error:  # EOFError: of the process that starts the others
        if isinstance(error, RuntimeError) and "start new thread" not in str(error):
            raise
        msg = f"worker processes cannot be started ({first_line(error)}): give fewer workers (--workers)"
        raise InputError(msg) from error
    finally:
        if chosen is None:
            multiprocessing.set_start_method(None, force=True)


@contextlib.contextmanager
def _stops_held_back() -> Iterator[None]:
    """Processes started inside it never get what a terminal sends to all: Ctrl-C, and SIGHUP when it is closed. Their
    parent ends them, and so it stops only when it knows all that it has started.
    """
    held: list[int] = []
    stops = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    own = {one: signal.getsignal(one) for one in stops} if threading.current_thread() is threading.main_thread() else {}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    for one, handler in own.items():  # the mask alone does not do: another thread may take the signal for this one
        if callable(handler):
            signal.signal(one, lambda number, _: held.append(number))
    try:
        yield
    finally:
        for one, handler in own.items():
            if callable(handler):
                signal.signal(one, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in held[:1]:
            signal.raise_signal(number)


@contextlib.contextmanager
def _without_main(*given: Any) -> Iterator[None]:
    """Processes started inside it do not run the user's script, as Python lets them do to define what it defines.

    So a script needs no ``if __name__ == "__main__"``, unless what a worker is `given` is defined in it.
    """
    script = vars(sys.modules["__main__"])
    if any(b"__main__" in pickle.dumps(one) for one in given):
        yield
        return
    with _HIDING:
        hidden = {name: script.pop(name) for name in ("__file__", "__spec__") if name in script}
        script["__spec__"] = None
        try:
            yield
        finally:
            script.update(hidden)


@contextlib.contextmanager
def _pool(workers: int, imports: Sequence[str] = _SLOW_IMPORTS) -> Iterator[ProcessPoolExecutor]:
    """Worker processes. On Linux they are copies of one process that has done the slow imports and nothing else.

    Ctrl-C, an error, and a caller who takes no more results, end them in the middle of their tasks.
    """
    if multiprocessing.current_process().daemon:
        msg = (
            "this process is itself a worker, as of multiprocessing.Pool or a DataLoader, and Python lets it start no "
            "others: give workers=0 (--workers 0)"
        )
        raise InputError(msg)
    how = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    how.set_forkserver_preload([*imports])
    with _starting():  # it starts Python's resource tracker
        pool = _Executor(workers, how, initializer=_prepare, initargs=(dict(os.environ),))
    try:
        yield pool
    except BaseException:  # nobody waits for the tasks in progress any more
        _terminate(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Executor(ProcessPoolExecutor):
    """Starts all workers before it begins to watch them, and ends them all when one dies.

    Python's own starts them one by one. When one dies, it waits without end for another one that is just starting, and
    for the rest of a result that the death cut off: the pipe of results stays open while any process can write to it.
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._safe_to_dynamically_spawn_children = False

    def _launch_processes(self) -> None:
        super()._launch_processes()  # pyright: ignore[reportAttributeAccessIssue]
        results: Any = self._result_queue
        results._writer.close()  # only the workers write to it
        threading.Thread(target=self._end_together, args=([*self._processes.values()],), daemon=True).start()

    def _end_together(self, processes: Sequence[Any]) -> None:
        multiprocessing.connection.wait([one.sentinel for one in processes])
        if not self._shutdown_thread:
            _terminate(self)


def _terminate(pool: ProcessPoolExecutor) -> None:
    for process in [*(pool._processes or {}).values()]:
        process.terminate()


def _in_threads(work: Callable[[Task], Result], tasks: Sequence[Task], count: int) -> Iterator[tuple[Task, Result]]:
    waiting = collections.deque(tasks)
    done: queue.SimpleQueue[tuple[Task, Any, BaseException | None]] = queue.SimpleQueue()

    def serve() -> None:
        while waiting:
            try:
                task = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                with ends_forks():
                    result = work(task)
                done.put((task, result, None))
            except BaseException as error:
                done.put((task, None, error))

    for _ in range(count):  # daemons, so that Ctrl-C does not wait for them
        threading.Thread(target=serve, daemon=True).start()
    try:
        for _ in range(len(tasks)):
            task, result, error = done.get()
            if error is not None:
                raise error
            yield task, result
    finally:
        waiting.clear()


@contextlib.contextmanager
def threads_restored() -> Iterator[None]:
    """Give the numeric libraries of this process back the threads that they had before the block."""
    import cv2

    torch = sys.modules.get("torch")
    of_torch, of_cv2 = torch.get_num_threads() if torch else default_workers(), cv2.getNumThreads()
    variables = {name: os.environ.get(name) for name in THREADS}
    try:
        yield
    finally:
        for name, value in variables.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        cv2.setNumThreads(of_cv2)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(of_torch)


def one_thread() -> None:
    """Limit the numeric libraries of this process to one thread, whether already imported or not."""
    import cv2

    cv2.setNumThreads(1)
    for variable in THREADS:
        os.environ[variable] = "1"
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@contextlib.contextmanager
def default_settings() -> Iterator[None]:
    """Give torch its own settings, as in a new process: no autocast, and float32 and the CPU as the defaults.

    A training loop may have made others around its call of avbench.
    """
    torch = sys.modules.get("torch")
    if torch is None:  # so nobody has made any
        yield
        return
    before = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.callback(torch.set_default_dtype, before)
        torch.set_default_dtype(torch.float32)
        yield


def _prepare(environment: dict[str, str]) -> None:
    os.environ.clear()  # the process that this one is a copy of may be older than a variable
    os.environ.update(environment)
    one_thread()
    # A worker waits on a pipe that it holds open itself, so it would not notice that the program was killed.
    end_with_program()


def end_with_program() -> None:
    """Let this process, which another one started, end when that one does, however it ends."""
    threading.Thread(target=_exit_after_program, daemon=True).start()


def _exit_after_program() -> None:
    program = multiprocessing.parent_process()
    assert program is not None  # this runs in workers only
    program.join()
    os._exit(1)


def _call(build: Build[Any, Any], task: Any) -> tuple[Any, float]:
    """The result of a task, and the peak memory of this process in MiB."""
    global _worker
    with ends_forks():
        if _worker is None:
            _worker = build()
        result = _worker(task)
    return result, peak_memory_mib(resource.RUSAGE_SELF)


def _result(future: Future[tuple[Any, float]]) -> Any:
    global most_memory_mib
    result, memory = future.result()
    most_memory_mib = max(most_memory_mib, memory)
    return result


def peak_memory_mib(who: int) -> float:
    """Peak memory of ``resource.RUSAGE_SELF`` or ``RUSAGE_CHILDREN`` in MiB. The system counts KiB, macOS bytes."""
    return round(resource.getrusage(who).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10), 1)
