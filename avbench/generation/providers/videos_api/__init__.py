"""Runs a video server as a generator: ``videos-api:URL#MODEL``, such as ``videos-api:http://localhost:8000/v1#t2v``.

A job is submitted, polled until it is done, and its clip downloaded. What it costs is paid once: the intent is on disk
before a job is sent, its id before it is polled (journal.py), and jobs are sent one at a time, so that at most one
answer can be lost by a kill. A lost one is looked for in the server's own list of jobs: the one of this prompt, not
older than the intent, that no clip has. It is sent again, under the same Idempotency-Key, only where the list does not
hold it. What remains possible: a server that takes a job after it was asked for its list, or forgets its jobs, is paid
twice; one that lists nothing (OpenRouter, Veo) leaves a lost job as a failure, until ``-M resubmit=true``; and a job of
the same prompt that somebody else sent in the same minute may be taken for ours.

What the server says that it runs, in its list of models and in its answers to jobs, is written down. Where it says
something else when a run is gone on with, that is refused before anything is paid; where only its answer to a job
does, nothing further is sent.

A refusal is the model's answer and is written down as one. A job that came to nothing is a failure, and the same
command given again submits it anew. Keys come from the environment: ``-M key_env=NAME``.
"""

import json
import math
import os
import re
import shutil
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avbench.core import InputError, Key, Refused, digest, frame_rate, nearest
from avbench.generation.providers.videos_api.http import Answer, BrokenError, Deadline, LostError, Server
from avbench.generation.providers.videos_api.journal import Journal, Step
from avbench.generation.providers.videos_api.shapes import (
    SHAPES,
    Wish,
    checked_job,
    error_words,
    is_refusal,
    told_of_model,
)
from avbench.generation.table import Made, Request, check_positive

_DOWNLOADS = 6
_ASKING_SECONDS = 10.0
_NOT_ASKED = "not asked"
_EARLIER_SECONDS = 60
"""How much slower than ours the server's clock may be."""
_SUFFIXES = {b"\x1a\x45\xdf\xa3": ".webm", b"RIFF": ".avi", b"GIF8": ".gif"}


class _UnlistedError(InputError):
    """A server cannot say what it was sent."""


class VideosAPI:
    """A server that speaks one of SHAPES, as a generator."""

    batch_size = 1

    def __init__(
        self,
        target: str,
        *,
        shape: str = "openai",
        text: str = "{video} {audio}",
        frames: int | None = None,
        fps: float | str | None = None,
        width: int | None = None,
        height: int | None = None,
        extra: Mapping[str, Any] | None = None,
        body: str | None = None,
        key_env: str | None = None,
        concurrency: int = 4,
        deadline: float = 1800,
        poll_seconds: float = 5,
        most_megabytes: float = 1000,
        resubmit: bool = False,
        mixed: bool = False,
        journal: Path | None = None,
    ) -> None:
        """Look at the settings; nothing is sent.

        Args:
            target: ``URL#MODEL``; the URL up to and with the version, ``…/v1``. MODEL may be left out.
            shape: of SHAPES.
            text: the prompt that is sent, of the captions ``{video}`` and ``{audio}``.
            frames: instead of what the subset asks for; so are the next three. Frames and fps are needed for prompts
                without a subset.
            fps: frames per second.
            width: pixels.
            height: pixels.
            extra: further fields of what is sent, over those that are; null leaves one out.
            body: ``multipart`` or ``json``, where the server wants the other one than usual.
            key_env: name of the environment variable that holds the key.
            concurrency: jobs under way at once.
            deadline: seconds for one clip, waiting included.
            poll_seconds: first pause between two questions; it grows.
            most_megabytes: of one clip.
            resubmit: submit anew what has no clip yet, also where a job was submitted: it may be paid twice.
            mixed: take clips of one run from whatever models the server says that it runs.
            journal: folder of the jobs; a temporary one where not given.
        """
        address, _, model = target.partition("#")
        if not re.fullmatch(r"https?://[^\s@?]+", address):
            msg = (
                f"videos-api:{_without_user(target)}: give http(s)://…#MODEL, without user, key or query: it is "
                "written down"
            )
            raise InputError(msg)
        if shape not in SHAPES:
            msg = f"shape {shape!r} is unknown; {nearest(shape, SHAPES)}"
            raise InputError(msg)
        if body not in (None, "json", "multipart"):
            msg = f"body {body!r} is unknown; choices: json, multipart"
            raise InputError(msg)
        check_positive(
            concurrency=concurrency, deadline=deadline, poll_seconds=poll_seconds, most_megabytes=most_megabytes
        )
        self._shape, self._model, self._text = SHAPES[shape], model, text
        self._form = {"frames": frames, "fps": None if fps is None else frame_rate(fps)}
        self._form |= {"width": width, "height": height}
        self._extra = dict(extra or {})
        self._multipart = body == "multipart" if body else self._shape.multipart
        self.concurrency, self._deadline_seconds, self._poll_seconds = int(concurrency), deadline, poll_seconds
        self._most_bytes = int(most_megabytes * 1e6)
        _filled(text, "", "")
        key = _key(key_env)
        self._server = Server(address, key, self._shape.key_header(key) if key else {}, first_pause=poll_seconds)
        if journal is None:
            journal = Path(tempfile.mkdtemp(prefix="avbench-"))
            weakref.finalize(self, shutil.rmtree, journal, ignore_errors=True)
        self._folder, self._journal = journal, Journal(journal / "jobs.jsonl", afresh=resubmit)
        self._submitting, self._asking = threading.Lock(), threading.Lock()
        self._mixed, self._another, self._said = mixed, "", _NOT_ASKED
        self.settings: Mapping[str, Any] = {
            "shape": shape,
            "text": text,
            **{name: value if name != "fps" or value is None else str(value) for name, value in self._form.items()},
            "extra": self._extra,
            "body": "multipart" if self._multipart else "json",
        }

    def generate(self, requests: Sequence[Request]) -> list[Made]:
        """Submit, wait for and download each clip. Raises Refused where the model will not make it."""
        return [self._one(request) for request in requests]

    def remarks(self, requests: Sequence[Request]) -> list[str]:
        """What the service cannot be asked for."""
        return [self._shape.remark] if self._shape.remark else []

    def _one(self, request: Request) -> Made:
        deadline = Deadline(self._deadline_seconds)
        job = self._job(request, deadline)
        address = self._finished(request.key, job, deadline)
        return Made(self._fetched(request.key, job, address, deadline), moved=True)

    def source(self, request: Request) -> str | None:
        """What the server says that it runs under the model's name; None where it does not say, or cannot be asked."""
        with self._asking:
            if self._said == _NOT_ASKED:
                deadline = Deadline(min(_ASKING_SECONDS, self._deadline_seconds))
                try:
                    answer = self._server.ask("GET", self._shape.reports(self._model), deadline)
                    said = told_of_model(self._model, answer.plain) if answer.good else None
                except (InputError, LostError):
                    said = None
                self._said = None if said is None or self._mixed else f"{self._server.clean(said)} {digest(said)[:12]}"
        return self._said

    # ---- submitting

    def _job(self, request: Request, deadline: Deadline) -> str:
        """The id of the clip's job, submitted now or earlier."""
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
                    deadline.pause(self._poll_seconds, str(lost))
                    continue
                return self._accepted(step, answer)
        finally:
            self._submitting.release()

    def _send(self, wish: Wish, step: Step, deadline: Deadline) -> Answer:
        body = {name: value for name, value in {**self._shape.body(wish), **self._extra}.items() if value is not None}
        form = {name: (None, _field(value)) for name, value in body.items()}
        sent: dict[str, Any] = {"files": form} if self._multipart else {"json": body}
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
        if model and (others := self._journal.models - {model}) and not self._mixed:
            now, before = (self._server.clean(one) for one in (model, ", ".join(sorted(others))))
            self._another = (
                f"the server says that it runs {now!r}, and other clips of this run are of {before!r}: give another "
                "--out, --replace to make them anew, or -M mixed=true to take both"
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
                self._journal.over(step.key, "the server never took it")

    def _listed(self, step: Step, deadline: Deadline) -> str | None:
        """The job that was sent without an answer, as the server lists it; None where it does not."""
        unknown = (
            "the answer to its submission was lost, and the server cannot list its jobs: it may be under way, and "
            "paid; -M resubmit=true submits it anew"
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
                f"the answer to its submission was lost, and the server has several jobs that may be it "
                f"({', '.join(sorted(set(found))[:5])}); -M resubmit=true submits it anew"
            )
            raise InputError(msg)
        return found[0] if found else None

    # ---- waiting and downloading

    def _finished(self, key: Key, job: str, deadline: Deadline) -> str:
        """Wait until a job is done; return where its clip lies."""
        pause = self._poll_seconds
        while True:
            answer = self._server.ask("GET", self._shape.poll(job), deadline)
            if answer.status in (404, 410):
                msg = f"the server no longer knows job {job} (restarted, or expired); the same command submits it anew"
                self._journal.over(key, msg)
                raise InputError(msg)
            if not answer.good or not isinstance(answer.plain, dict):
                msg_0 = f"the server answers {answer.status} to a question about job {job}"
                raise self._error(msg_0, answer.plain)
            state = self._shape.state(job, answer.plain)
            if state.kind == "done":
                return state.address
            if state.kind != "working":
                words = self._server.clean(state.words)
                self._journal.over(key, words)
                raise Refused(words) if state.kind == "refused" else InputError(f"job {job} failed: {words}")
            said = answer.headers.get("openai-poll-after-ms", "")
            deadline.pause(int(said) / 1000 if said.isdigit() else pause, f"job {job} is still {state.words}")
            pause = min(pause * 1.5, max(30.0, self._poll_seconds))

    def _fetched(self, key: Key, job: str, address: str, deadline: Deadline) -> Path:
        """Download a clip; one that is not there yet, or was cut off, is asked for again a few times."""
        path = self._folder / f"{key.subset}--{key.prompt}-{key.seed}.mp4"
        pause, left = self._poll_seconds, _DOWNLOADS
        while True:
            try:
                gone = self._server.download(address, path, deadline, most_bytes=self._most_bytes)
                if gone is None:
                    return _suffixed(path)
                why, left = f"its clip is not there (any more): {gone}", left - 1
            except BrokenError as broken:
                path.unlink(missing_ok=True)
                why, left = str(broken), left - 1
            except LostError as lost:  # a server that is down is waited for, as everywhere
                why = str(lost)
            except InputError:
                path.unlink(missing_ok=True)
                raise
            if not left:
                msg = f"job {job}: {why}; tried {_DOWNLOADS} times. -M resubmit=true submits it anew"
                raise InputError(msg)
            pause = min(pause * 2, 30.0)
            deadline.pause(max(self._poll_seconds, min(pause, deadline.left / 2)), f"job {job}: {why}")
            address = self._finished(key, job, deadline)  # addresses expire, and may be given anew

    # ---- words

    def _wish(self, request: Request) -> Wish:
        spec = request.clip_spec
        form: dict[str, Any] = {
            name: getattr(spec, name, None) if value is None else value for name, value in self._form.items()
        }
        if form["frames"] is None or form["fps"] is None:
            msg = "how many frames, at which rate? These prompts do not say: give -M frames= and -M fps="
            raise InputError(msg)
        text = _filled(self._text, request.prompt.video_caption, request.prompt.audio_caption or "")
        return Wish(self._model, text, request.key.seed, **form)

    def _error(self, what: str, plain: Any) -> InputError:
        words = self._server.clean(error_words(plain))
        return Refused(words) if is_refusal(words) else InputError(f"{what}: {words or 'without a reason'}")


def _filled(text: str, video: str, audio: str) -> str:
    try:
        return text.format(video=video, audio=audio).strip()
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        msg = f"text {text!r} cannot be filled in ({error}); it may hold {{video}} and {{audio}}"
        raise InputError(msg) from None


def _key(name: str | None) -> str | None:
    """The key that an environment variable holds. No message repeats what it was given: it might be the key itself."""
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
        msg = "what the environment variable that key_env names holds cannot be a key: no header can carry it"
        raise InputError(msg)
    return key


def _created(job: Mapping[str, Any]) -> float:
    """Unix seconds; now or later where the server does not say."""
    created = job.get("created_at")
    return created if isinstance(created, int | float) else math.inf


def _without_user(target: str) -> str:
    return re.sub(r"//[^/@]*@|\?[^#]*", "…", target)


def _field(value: Any) -> str:
    """A value as a field of a form."""
    return value if isinstance(value, str) else json.dumps(value)


def _suffixed(path: Path) -> Path:
    """Give the file the suffix of what it is, where that is not mp4."""
    with path.open("rb") as file:
        suffix = _SUFFIXES.get(file.read(4), ".mp4")
    return path if suffix == ".mp4" else path.rename(path.with_suffix(suffix))
