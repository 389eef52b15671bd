"""Work that its process dies of. Worker processes import it, so it imports nothing heavy itself."""

import os
import signal

VICTIM = "AVBENCH_TEST_VICTIM"
"""Environment variable that workers inherit: what a process dies of."""


def dies_of(what):
    if what == os.environ.get(VICTIM):
        os.kill(os.getpid(), signal.SIGKILL)
    return what


def echo():
    return dies_of


def measuring(folder, against, places):
    """The worker of `measure`, which dies of one clip in one feature."""
    from avbench.features import measure

    look = measure._worker(folder, against, places)

    def one(task):
        for feature in task.features:
            dies_of(f"{task.samples[0].path} {feature}")
        return look(task)

    return one
