"""Kills of actors, machines and the command itself, with Ray as workers: nothing is lost, and nothing is made twice.

The cluster is three nodes of Ray on this machine. docs/reliability.md says what was found;
`pytest -m drill tests/drill/test_ray_kills.py -s` repeats it (seeded, but what a kill hits depends on the moment).
"""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from command_line import run_avbench
from parts_of_runs import in_order
from processes import children_named, wait_until

from avbench.storage.runs.folder import RunFolder
from avbench.storage.runs.retried import TRIED_AGAIN
from avbench.storage.workers.worker_pool import WorkerCrashed

pytestmark = [pytest.mark.drill, pytest.mark.timeout(2 * 3600)]
if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

KILLS = {"actor": 65, "command": 25, "node": 10}
MOST_ACTORS = 4
"""Of one command: it gives up where six actors in a row die while they load."""
MOST_COMMANDS = 12
"""Of one round, until one ends well."""
CLIPS = 12
SAMPLE = ("sample", "toyworld:", "--subset", "toy-object-contact", "--limit", str(CLIPS))
MEASURE = ("measure", "o/toyworld", "--metric", "onset_rate,motion_amount")


class Machines:
    """A cluster with two nodes of one core each, and a head that does no work."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]

    def kill_node(self, rng):
        """Kill a node with its actors; another one takes its place."""
        self.cluster.remove_node(self.nodes.pop(rng.randrange(2)), allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=1))

    def actors(self):
        return children_named("ray::Actor", os.getpid())

    def command(self, words, place):
        words = [sys.executable, "-m", "avbench", *words, "--engine", "ray", "--address", self.cluster.address]
        with (place / "log").open("w") as log:
            return subprocess.Popen([*words, "--workers", "2"], cwd=place, stdout=log, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def machines():
    found = Machines()
    yield found
    found.cluster.shutdown()


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """What one process makes."""
    place = tmp_path_factory.mktemp("right")
    run_avbench(*SAMPLE, "--out", place / "o", "--workers", 0)
    run_avbench("measure", place / "o/toyworld", *MEASURE[2:], "--workers", 0)
    return place / "o" / "toyworld"


def finished(place):
    """Files of the clips that the run has recorded → inode, and the recorded rows."""
    folder = RunFolder(place / "o" / "toyworld")
    if not (folder.path / "samples.jsonl").exists():
        return {}
    clips = [folder.path / one.path for one in folder.samples().values() if one.path]
    return {path: path.stat().st_ino for path in clips}


def without_deaths(place):
    """`in_order`, without lines of clips whose process died twice: they were tried again, and a later line counts."""
    found = in_order(place)
    found["samples.jsonl"] = [one for one in found["samples.jsonl"] if one["failure"] != str(WorkerCrashed("making"))]
    for name in found:
        if name.endswith("rows.jsonl"):
            missing = [(line, json.loads(line).get("missing") or "") for line in found[name]]
            found[name] = [line for line, why in missing if not why.startswith(TRIED_AGAIN)]
    return found


def test_kills(machines, right, tmp_path):
    rng, left, done, commands, named = random.Random(22), Counter(KILLS), Counter(), 0, 0
    rounds = 0
    while +left:
        rounds += 1
        place = tmp_path / f"{rounds}"
        place.mkdir()
        for words in ((*SAMPLE, "--out", "o"), MEASURE):
            for _ in range(MOST_COMMANDS):
                before = finished(place)
                commands += 1
                running = machines.command(words, place)
                wait_until(lambda running=running: machines.actors() or running.poll() is not None)
                victim = rng.choice([*(+left).elements()]) if +left else None
                for _ in range(min(left[victim], MOST_ACTORS if victim == "actor" else 1)):
                    time.sleep(rng.uniform(0, 5))
                    hit = strike(machines, victim, running, rng)
                    left[victim] -= hit
                    done[victim] += hit
                running.wait(600)
                log = (place / "log").read_text()
                # a command on the machine that was killed may end in any way
                assert running.returncode in (0, 1, -signal.SIGKILL) or victim == "node", log
                named += log.count("not made:") + log.count("not measured:")
                after = finished(place)
                assert {path: after[path] for path in before} == before, "a finished clip was made again"
                if running.returncode == 0:
                    break
            else:
                pytest.fail(f"{MOST_COMMANDS} commands were not enough: {log}")
        found, wanted = without_deaths(place / "o" / "toyworld"), in_order(right)
        compared = {*found, *wanted} - {"run.json"}  # which names the versions of packages that its process has loaded
        assert sorted(name for name in compared if found.get(name) != wanted.get(name)) == []
        counts = ", ".join(f"{count} of {what}s" for what, count in done.items())
        print(f"kills: {counts}; {commands} commands, {rounds} runs identical; {named} clips named after two kills")  # noqa: T201


def strike(machines, victim, running, rng):
    """Kill an actor, a node, or the command; says whether anything was hit."""
    if victim == "command":
        running.send_signal(signal.SIGKILL)
        return running.wait() == -signal.SIGKILL
    there = machines.actors()
    if not there or running.poll() is not None:
        return False
    if victim == "node":
        machines.kill_node(rng)
        return True
    try:
        os.kill(rng.choice(there), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
