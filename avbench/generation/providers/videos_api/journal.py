"""Records submitted jobs: one line per step in ``jobs.jsonl``, on disk before the next step is taken.

A clip's job is first an ``intent`` (written before it is sent), then ``submitted`` (its id is known), and ``over`` when
the server reports that it failed. The last line of a clip counts. The file holds no secrets.
"""

import threading
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from avbench.core import Key
from avbench.storage.reading import read_lines
from avbench.storage.writing import append_line


@dataclass(frozen=True)
class Step:
    """The latest state of a clip's job."""

    key: Key
    state: str
    """``intent``, ``submitted`` or ``over``."""
    prompt: str
    """The prompt as it is sent."""
    token: str
    """The Idempotency-Key, which stays the same however often the job is sent."""
    unix_seconds: float
    """When the intent was written."""
    job: str | None = None
    model: str | None = None
    """The model that the server reports."""
    why: str | None = None


class Journal:
    """The jobs of one run folder; safe to use from several threads."""

    def __init__(self, path: Path, *, afresh: bool = False) -> None:
        """Read the file; `afresh` forgets which clip each job belongs to."""
        self._path, self._lock = path, threading.Lock()
        steps = read_lines(path, Step)
        self._last = {} if afresh else {step.key: step for step in steps}
        self.jobs = {step.job for step in steps if step.job}
        """Ids of all jobs that any clip ever had."""

    @property
    def models(self) -> set[str]:
        """The models that the server reported, for the jobs that count now."""
        return {step.model for step in self._last.values() if step.model and step.state != "over"}

    def last(self, key: Key) -> Step | None:
        """The latest step of a clip's job; None if a new job has to be submitted."""
        step = self._last.get(key)
        return None if step is None or step.state == "over" else step

    def lost(self, prompt: str) -> list[Step]:
        """Jobs of this prompt that were or may have been sent and whose id is unknown, the oldest first."""
        lost = [step for step in self._last.values() if step.state == "intent" and step.prompt == prompt]
        return sorted(lost, key=lambda step: step.unix_seconds)

    def intend(self, key: Key, prompt: str) -> Step:
        """Record that a job is about to be sent."""
        return self._add(Step(key, "intent", prompt, uuid.uuid4().hex, time.time()))

    def submitted(self, step: Step, job: str, model: str | None = None) -> None:
        """Record the id of a job."""
        self._add(replace(step, state="submitted", job=job, model=model))

    def over(self, key: Key, why: str) -> None:
        """Record that a job failed."""
        self._add(replace(self._last[key], state="over", why=why))

    def _add(self, step: Step) -> Step:
        with self._lock:
            append_line(self._path, asdict(step), durable=True)
            self._last[step.key] = step
            if step.job:
                self.jobs.add(step.job)
        return step
