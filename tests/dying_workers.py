"""Work that its process dies of. Worker processes import it, so it imports nothing heavy itself."""

import gc
import multiprocessing.queues
import os
import signal
import struct
import time
from pathlib import Path

from avbench.core import InputError

VICTIM = "AVBENCH_TEST_VICTIM"
"""Environment variable that workers inherit: what a process dies of."""


def dies_of(what):
    if what == os.environ.get(VICTIM):
        os.kill(os.getpid(), signal.SIGKILL)
    return what


def echo():
    return dies_of


def obedient(folder):
    """A worker that notes each call in a file named after its task, and then does what the task says after its name."""

    def one(task):
        name, _, what = task.partition(" ")
        with (folder / name).open("a") as calls:
            calls.write(f"{os.getpid()}\n")
        first = len((folder / name).read_text().splitlines()) == 1
        if what == "dies" or (what == "dies once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "dies halfway":
            hand_half_over()
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "naps":
            time.sleep(10)
        if what == "hangs":
            time.sleep(3600)
        if what == "raises":
            msg = f"{name} is wrong"
            raise InputError(msg)
        return name.upper()

    return one


def hand_half_over():
    """Leave what a death leaves in the middle of a large result: half of it, and a lock that nobody else gets."""
    (results,) = (one for one in gc.get_objects() if isinstance(one, multiprocessing.queues.SimpleQueue))
    results._wlock.acquire()
    os.write(results._writer.fileno(), struct.pack("!i", 2**20) + bytes(2**19))


def large():
    """A worker that is nearly always in the middle of handing a result over."""
    return {"result": bytes(2**23)}.__getitem__


def taking_turns(folder):
    """A worker that says its turn when as many workers as its task says have begun."""
    from avbench.features import devices

    def one(workers):
        (folder / str(os.getpid())).touch()
        while len([*folder.iterdir()]) < workers:
            time.sleep(0.01)
        return devices.turn()

    return one


def unbuildable():
    msg = "the weights are not here"
    raise InputError(msg)


def measuring(*given):
    """The worker of `measure`, which dies of one clip in one feature."""
    from avbench.features import worker

    look = worker.worker(*given)

    def one(task):
        for feature in task.features:
            dies_of(f"{task.samples[0].path} {feature}")
        return look(task)

    return one


def begun_with():
    """A worker that tells an environment variable's value now, and the text that its program began with."""
    return lambda name: (os.environ.get(name), _begun_with(name))


def _begun_with(name):
    lines = Path("/proc/self/environ").read_text().split("\0")
    return next(line for line in lines if line.startswith(f"{name}="))
