"""Runs a video server as a generator: ``videos-api:URL#MODEL``, such as ``videos-api:http://localhost:8000/v1#t2v``.

A job is submitted, polled until it is done, and its clip downloaded. Jobs cost money, so each is meant to be paid once.
The intent is on disk before a job is sent and the job's id before it is polled (journal.py). Jobs are sent one at a
time, so a kill can lose at most one answer. After a lost answer, the job is looked for in the server's own list of
jobs: a job of this prompt, not older than the intent, that belongs to no clip. Only if the list does not hold it, it is
sent again, with the same Idempotency-Key.

Three risks remain. A server that accepts a job after it was asked for its list, or that forgets its jobs, is paid
twice. A server without a list (OpenRouter, Veo, fal.ai) leaves a lost job as a failure until ``-M resubmit=true``.
A job of the same prompt that somebody else sent in the same minute may be mistaken for ours.

What the server reports that it runs, in its list of models and in its answers to jobs, is recorded. If its list reports
something else when a run continues, the run is refused before anything is paid. If only the answer to a job does,
nothing further is sent.

A refusal is the model's answer and is recorded as one. A failed job is a failure; the same command submits it again.
Keys come from the environment: ``-M key_env=NAME``.
"""

import json
import math
import os
import re
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avbench.core import InputError, Key, Refused, digest, frame_rate, require_known
from avbench.generation.providers.videos_api.journal import Journal, Step
from avbench.generation.providers.videos_api.shapes import (
    SHAPES,
    State,
    Wish,
    checked_job,
    error_words,
    is_refusal,
    model_report,
)
from avbench.generation.settings import captioned, check_kinds, check_template, grouped
from avbench.generation.table import Made, Request
from avbench.storage.servers import Answer, BrokenError, Deadline, LostError, Server

_DOWNLOADS = 6
_ASKING_SECONDS = 10.0
_NOT_ASKED = "not asked"
_MILLISECONDS = re.compile("[0-9]{1,9}")
_EARLIER_SECONDS = 60
"""How many seconds the server's clock may be behind ours."""
_SUFFIXES = {b"\x1a\x45\xdf\xa3": ".webm", b"RIFF": ".avi", b"GIF8": ".gif"}


class _UnlistedError(InputError):
    """The server cannot list the jobs that it was sent."""


@dataclass(frozen=True)
class Content:
    """What is requested for a clip. It decides the clips, so it is recorded with the run."""

    shape: str = "openai"
    """One of SHAPES."""
    text: str = "{video} {audio}"
    """The prompt to send, a template of the captions ``{video}`` and ``{audio}``."""
    frames: int | None = None
    """Number of frames instead of what the subset asks for. Frames and fps are needed for prompts without a subset."""
    fps: float | str | None = None
    """Frames per second, in the same way."""
    width: int | None = None
    """Pixels, in the same way."""
    height: int | None = None
    """Pixels, in the same way."""
    extra: Mapping[str, Any] | None = None
    """Further fields of the request, which override others; null leaves a field out."""
    body: str | None = None
    """``multipart`` or ``json``, if the server needs another form than the usual one."""

    def __post_init__(self) -> None:
        check_kinds(vars(self), names=["shape", "text"])
        given = {name: value for name, value in vars(self).items() if value is not None}
        check_kinds(given, objects=["extra"], counts=["frames", "width", "height"])
        require_known("shape", self.shape, SHAPES)
        if self.body not in (None, "json", "multipart"):
            msg = f"body {self.body!r} is unknown; choices: json, multipart"
            raise InputError(msg)
        check_template(self.text, "text")

    @property
    def form(self) -> dict[str, Any]:
        """Frames, fps, width and height; None leaves one to the subset."""
        fps = None if self.fps is None else frame_rate(self.fps)
        return {"frames": self.frames, "fps": fps, "width": self.width, "height": self.height}

    @property
    def multipart(self) -> bool:
        """Whether requests are sent as a form."""
        return self.body == "multipart" if self.body else SHAPES[self.shape].multipart

    def recorded(self) -> dict[str, Any]:
        """Plain values for run.json, defaults included."""
        form = {name: value if name != "fps" or value is None else str(value) for name, value in self.form.items()}
        body = "multipart" if self.multipart else "json"
        return {"shape": self.shape, "text": self.text, **form, "extra": dict(self.extra or {}), "body": body}


@dataclass(frozen=True)
class Handling:
    """How the server is used. It decides no clip, so a run continues under other values."""

    key_env: str | None = None
    """Name of the environment variable that holds the key."""
    concurrency: int = 4
    """Jobs in progress at once."""
    deadline: float = 1800
    """Seconds for one clip, waiting included."""
    poll_seconds: float = 5
    """The first pause between two polls; later pauses are longer."""
    most_megabytes: float = 1000
    """Largest size of one clip."""
    resubmit: bool = False
    """Submit every clip again that is missing, even if its job was submitted: it may be paid twice."""
    mixed: bool = False
    """Accept clips of one run from different models, as the server reports them."""

    def __post_init__(self) -> None:
        positive = ("deadline", "poll_seconds", "most_megabytes")
        check_kinds(vars(self), counts=["concurrency"], flags=["resubmit", "mixed"], positive=positive)


class VideosAPI:
    """A server that speaks one of SHAPES, as a generator. Its settings are the fields of `Content` and `Handling`."""

    batch_size = 1
    setting_groups = (Content, Handling)

    def __init__(self, target: str, *, journal: Path | None = None, **settings: Any) -> None:
        """Check the settings; nothing is sent.

        Args:
            target: ``URL#MODEL``; the URL up to and including the version, ``…/v1``. MODEL may be left out.
            journal: folder of the jobs; a temporary one by default.
            **settings: fields of `setting_groups`.
        """
        self._content, self._handling = grouped(settings, *self.setting_groups)
        address, _, self._model = target.partition("#")
        if not re.fullmatch(r"https?://[^\s@?]+", address):
            msg = (
                f"videos-api:{_without_user(target)}: give http(s)://…#MODEL, without user, key or query, because the "
                "address is recorded"
            )
            raise InputError(msg)
        self._shape, self.concurrency = SHAPES[self._content.shape], self._handling.concurrency
        key, pause = _key(self._handling.key_env), self._handling.poll_seconds
        self._server = Server(address, key, self._shape.key_header(key) if key else {}, first_pause=pause)
        if journal is None:
            journal = Path(tempfile.mkdtemp(prefix="avbench-"))
            weakref.finalize(self, shutil.rmtree, journal, ignore_errors=True)
        self._folder, self._journal = journal, Journal(journal / "jobs.jsonl", afresh=self._handling.resubmit)
        self._submitting, self._asking = threading.Lock(), threading.Lock()
        self._another, self._reported = "", _NOT_ASKED
        self.settings: Mapping[str, Any] = self._content.recorded()

    def generate(self, requests: Sequence[Request]) -> list[Made]:
        """Submit, wait for and download each clip. Raises Refused if the model refuses to make it."""
        return [self._one(request) for request in requests]

    def remarks(self, requests: Sequence[Request]) -> list[str]:
        """List the settings that the service does not support, and say if nobody answers yet."""
        remarks = [self._shape.remark] if self._shape.remark else []
        if reason := self._server.unreachable():
            waits = f"a missing clip waits for it for {self._handling.deadline:g} s (-M deadline=)"
            remarks.append(f"{reason}: {waits}; Ctrl-C ends that, and the same command goes on")
        return remarks

    def _one(self, request: Request) -> Made:
        deadline = Deadline(self._handling.deadline)
        job = self._job(request, deadline)
        address = self._finished(request.key, job, deadline)
        return Made(self._fetched(request.key, job, address, deadline), moved=True, requested=self._form(request))

    def source(self, request: Request) -> str | None:
        """What the server reports that it runs under the model's name; None if it does not report it."""
        with self._asking:
            if self._shape.reports is None:
                return None
            if self._reported == _NOT_ASKED:
                deadline = Deadline(min(_ASKING_SECONDS, self._handling.deadline))
                try:
                    answer = self._server.ask("GET", self._shape.reports(self._model), deadline)
                    reported = model_report(self._model, answer.plain) if answer.good else None
                except (InputError, LostError):
                    reported = None
                self._reported = (
                    None
                    if reported is None or self._handling.mixed
                    else f"{self._server.clean(reported)} {digest(reported)[:12]}"
                )
        return self._reported

    # ---- submitting

    def _job(self, request: Request, deadline: Deadline) -> str:
        """The id of the clip's job, which is submitted now or was submitted earlier."""
        key, wish = request.key, self._wish(request)
        if not self._submitting.acquire(timeout=max(0.0, deadline.left)):
            msg = "other jobs could not be submitted in this time"
            raise deadline.passed(msg)
        try:
            if self._another:
                raise InputError(self._another)
            while True:
                self._find_lost(key, wish.prompt, deadline)
                step = self._journal.last(key) or self._journal.intend(key, wish.prompt)
                if step.job:
                    return step.job
                try:
                    answer = self._send(wish, step, deadline)
                except LostError as lost:
                    deadline.pause(self._handling.poll_seconds, str(lost))
                    continue
                return self._accepted(step, answer)
        finally:
            self._submitting.release()

    def _send(self, wish: Wish, step: Step, deadline: Deadline) -> Answer:
        body = {
            name: value
            for name, value in {**self._shape.body(wish), **(self._content.extra or {})}.items()
            if value is not None
        }
        form = {name: (None, _field(value)) for name, value in body.items()}
        sent: dict[str, Any] = {"files": form} if self._content.multipart else {"json": body}
        headers = {"Idempotency-Key": step.token}
        return self._server.ask("POST", self._shape.submit(wish.model), deadline, twice=False, headers=headers, **sent)

    def _accepted(self, step: Step, answer: Answer) -> str:
        try:
            if not answer.good:
                msg = f"the server answers {answer.status}"
                raise self._error(msg, answer.plain)
            job = checked_job(answer.plain.get(self._shape.identifier) if isinstance(answer.plain, dict) else None)
        except InputError as error:
            self._journal.over(step.key, str(error))
            raise
        model = answer.plain.get("model")
        model = model if isinstance(model, str) else None
        if model and (others := self._journal.models - {model}) and not self._handling.mixed:
            now, before = (self._server.clean(one) for one in (model, ", ".join(sorted(others))))
            self._another = (
                f"the server reports that it runs {now!r}, but other clips of this run are from {before!r}: give "
                "another out (--out), replace=True (--replace) to make them again, or the setting mixed=true (-M) to "
                "accept both"
            )
            self._journal.over(step.key, self._another)
            raise InputError(self._another)
        self._journal.submitted(step, job, model)
        return job

    def _find_lost(self, key: Key, prompt: str, deadline: Deadline) -> None:
        """Find the jobs of this prompt whose answer was lost, so that the next one cannot be mistaken for them."""
        for step in self._journal.lost(prompt):
            try:
                found = self._listed(step, deadline)
            except _UnlistedError:
                if step.key == key:
                    raise
                continue
            if found:
                self._journal.submitted(step, found)
            elif step.key != key:
                self._journal.over(step.key, "the server never accepted it")

    def _listed(self, step: Step, deadline: Deadline) -> str | None:
        """The id of a job that was sent without an answer, from the server's list; None if it is not listed."""
        unknown = (
            "the answer to its submission was lost, and the server cannot list its jobs: the job may be in progress "
            "and paid; -M resubmit=true submits it again"
        )
        if self._shape.listing is None:
            raise _UnlistedError(unknown)
        found: list[str] = []
        after: dict[str, str] = {}
        while True:
            page = {"limit": "100", "order": "desc", **after}
            answer = self._server.ask("GET", self._shape.listing, deadline, params=page)
            jobs = answer.plain.get("data") if answer.good and isinstance(answer.plain, dict) else None
            if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
                raise _UnlistedError(unknown)
            recent = [job for job in jobs if _created(job) >= step.unix_seconds - _EARLIER_SECONDS]
            found += [
                checked_job(job.get("id"))
                for job in recent
                if job.get("prompt") == step.prompt and job.get("id") not in self._journal.jobs
            ]
            if not recent or not answer.plain.get("has_more") or after.get("after") == jobs[-1].get("id"):
                break
            after = {"after": str(jobs[-1].get("id"))}
        if len(set(found)) > 1:
            msg = (
                f"the answer to its submission was lost, and several of the server's jobs may be it "
                f"({', '.join(sorted(set(found))[:5])}); -M resubmit=true submits it again"
            )
            raise InputError(msg)
        return found[0] if found else None

    # ---- waiting and downloading

    def _finished(self, key: Key, job: str, deadline: Deadline) -> str:
        """Wait until a job is done; return the address of its clip."""
        pause = self._handling.poll_seconds
        while True:
            answer = self._server.ask("GET", self._shape.poll(job), deadline)
            if answer.status in (404, 410):
                msg = f"the server no longer knows job {job} (restart or expiry); the same command submits it again"
                self._journal.over(key, msg)
                raise InputError(msg)
            if not answer.good or not isinstance(answer.plain, dict):
                msg = f"the server answers {answer.status} to a poll of job {job}"
                raise self._error(msg, answer.plain)
            state = self._shape.state(job, answer.plain)
            if state.kind == "done" and self._shape.result:
                state = self._result(state, self._shape.result, deadline)
            if state.kind == "done":
                return state.address
            if state.kind != "working":
                words = self._server.clean(state.words)
                self._journal.over(key, words)
                raise Refused(words) if state.kind == "refused" else InputError(f"job {job} failed: {words}")
            wait = answer.headers.get("openai-poll-after-ms", "")
            deadline.pause(
                int(wait) / 1000 if _MILLISECONDS.fullmatch(wait) else pause, f"job {job} is still {state.words}"
            )
            pause = min(pause * 1.5, max(30.0, self._handling.poll_seconds))

    def _result(self, state: State, read: Callable[[Mapping[str, Any]], State], deadline: Deadline) -> State:
        """Ask for the result of a job that is done; where its clip is, or why there is none."""
        answer = self._server.ask("GET", state.address, deadline)
        if answer.good and isinstance(answer.plain, dict):
            return read(answer.plain)
        words = error_words(answer.plain) or "without a reason"
        return State("refused" if is_refusal(words) else "failed", f"its result answers {answer.status}: {words}")

    def _fetched(self, key: Key, job: str, address: str, deadline: Deadline) -> Path:
        """Download a clip; one that is not there yet, or was cut off, is requested again a few times."""
        path = self._folder / f"{key.subset}--{key.prompt}-{key.seed}.mp4"
        pause, left = self._handling.poll_seconds, _DOWNLOADS
        while True:
            try:
                gone = self._server.download(
                    address, path, deadline, most_bytes=int(self._handling.most_megabytes * 1e6)
                )
                if gone is None:
                    return _suffixed(path)
                why, left = f"its clip is not there: {gone}", left - 1
            except BrokenError as broken:
                path.unlink(missing_ok=True)
                why, left = str(broken), left - 1
            except LostError as lost:  # wait for a server that is down, as everywhere
                why = str(lost)
            except InputError:
                path.unlink(missing_ok=True)
                raise
            if not left:
                msg = f"job {job}: {why}; tried {_DOWNLOADS} times. -M resubmit=true submits it again"
                raise InputError(msg)
            pause = min(pause * 2, 30.0)
            deadline.pause(max(self._handling.poll_seconds, min(pause, deadline.left / 2)), f"job {job}: {why}")
            address = self._finished(key, job, deadline)  # addresses expire, and the server may give a new one

    # ---- words

    def _wish(self, request: Request) -> Wish:
        form = self._form(request)
        if form["frames"] is None or form["fps"] is None:
            msg = "these prompts do not say how many frames are wanted at which rate: give -M frames= and -M fps="
            raise InputError(msg)
        if (form["width"] is None) != (form["height"] is None):
            given, absent = ("width", "height") if form["height"] is None else ("height", "width")
            msg = f"-M {given}={form[given]} is given, but no {absent}: give -M {absent}= as well, or neither"
            raise InputError(msg)
        captions = request.prompt.video_caption, request.prompt.audio_caption or ""
        text = captioned(self._content.text, *captions, "text")
        return Wish(self._model, text, request.key.seed, **form)

    def _form(self, request: Request) -> dict[str, Any]:
        """Frames, fps, width and height that are requested for a clip."""
        spec = request.clip_spec
        return {
            name: getattr(spec, name, None) if value is None else value for name, value in self._content.form.items()
        }

    def _error(self, what: str, plain: Any) -> InputError:
        words = self._server.clean(error_words(plain))
        return Refused(words) if is_refusal(words) else InputError(f"{what}: {words or 'without a reason'}")


def _key(name: str | None) -> str | None:
    """The key in an environment variable. No message repeats the given value, because it might be the key itself."""
    if name is None:
        return None
    if not isinstance(name, str) or not re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name):
        msg = "key_env must be the name of an environment variable, in capitals; the key itself is never given here"
        raise InputError(msg)
    key = os.environ.get(name, "").strip()
    if not key:
        msg = "the environment variable that key_env names is not set"
        raise InputError(msg)
    if not key.isascii() or not key.isprintable() or " " in key:
        msg = "the environment variable that key_env names holds no key: its value cannot be sent in a header"
        raise InputError(msg)
    return key


def _created(job: Mapping[str, Any]) -> float:
    """When the job was created, in Unix seconds; infinity if the server does not say."""
    created = job.get("created_at")
    return created if isinstance(created, int | float) else math.inf


def _without_user(target: str) -> str:
    return re.sub(r"//[^/@]*@|\?[^#]*", "…", target)


def _field(value: Any) -> str:
    """A value as the text of a form field."""
    return value if isinstance(value, str) else json.dumps(value)


def _suffixed(path: Path) -> Path:
    """Rename the file to the suffix of its real format, if that is not mp4."""
    with path.open("rb") as file:
        suffix = _SUFFIXES.get(file.read(4), ".mp4")
    return path if suffix == ".mp4" else path.rename(path.with_suffix(suffix))
