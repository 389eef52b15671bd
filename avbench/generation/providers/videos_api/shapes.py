"""Describes the APIs of video services, one `Shape` each: what is sent, and how a job's state is read.

``openai``: OpenAI's Videos API as vLLM-Omni, SGLang and LiteLLM serve it (the service of that name was switched off in
September 2026); ``num_frames``, ``fps``, ``seed`` and ``generate_sound`` are vLLM-Omni's and SGLang's additions.
``openrouter``: OpenRouter's /api/v1/videos; no fps, whole seconds. ``veo``: Gemini API's predictLongRunning; no seed.
``fal``: fal.ai's queue: a request is submitted, its status polled, and its result asked for, which names the clip.
Written from their public documentation; no service of the four was called.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from avbench.core import InputError

_MODERATION = re.compile(
    r"moderation|content.?(policy|filter)|safety.?(system|filter|policy|guideline|violation)|responsible.?ai"
    r"|flagged|prohibited.?content|sensitive.?content",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Wish:
    """The properties of one clip to request."""

    model: str
    prompt: str
    seed: int
    frames: int
    fps: Fraction
    width: int | None
    height: int | None

    @property
    def whole_seconds(self) -> int:
        """Length in seconds, rounded up."""
        return math.ceil(self.frames / self.fps)


@dataclass(frozen=True)
class State:
    """The state of a job."""

    kind: str
    """``working``, ``done``, ``failed`` or ``refused``."""
    words: str = ""
    """The server's own words."""
    address: str = ""
    """The address of the clip, or of the result that names it (see `Shape.result`); relative to the server's."""


@dataclass(frozen=True)
class Shape:
    """The API of one service."""

    submit: Callable[[str], str]
    """Model → path."""
    body: Callable[[Wish], dict[str, Any]]
    identifier: str
    """Field of the answer that holds the job's id."""
    poll: Callable[[str], str]
    """Job's id → path."""
    state: Callable[[str, Mapping[str, Any]], State]
    """(Job's id, answer to a poll) → state of the job."""
    key_header: Callable[[str], dict[str, str]]
    listing: str | None
    """Path of the list of jobs; None if there is no list."""
    multipart: bool
    """Whether a form is sent by default; otherwise JSON."""
    reports: Callable[[str], str] | None
    """Model → path at which the server reports what it runs: a list of models, or this one; None if it does not."""
    remark: str = ""
    result: Callable[[Mapping[str, Any]], State] | None = None
    """Result of a job → where its clip is; None if the address of a job that is done is the clip itself."""


def error_words(plain: Any) -> str:
    """Code and message of an error, in any of the usual forms."""
    error = plain.get("error", plain) if isinstance(plain, Mapping) else plain
    if isinstance(error, Mapping) and isinstance(error.get("detail"), list):  # of fal.ai: one entry for each field
        return "; ".join(error_words(one) for one in error["detail"])
    if isinstance(error, Mapping):
        parts = [error.get(name) for name in ("code", "type", "status", "message", "msg", "detail")]
        return ": ".join(str(part) for part in parts if part not in (None, ""))
    return str(error or "")


def is_refusal(words: str) -> bool:
    """Whether an error means that the model refuses the content of the request."""
    return bool(_MODERATION.search(words))


def _ended(words: str) -> State:
    return State("refused" if is_refusal(words) else "failed", words or "no reason given")


def _size(wish: Wish) -> dict[str, Any]:
    return {} if wish.width is None else {"size": f"{wish.width}x{wish.height}"}


def _aspect(wish: Wish, ratio: str, resolution: str) -> dict[str, Any]:
    if wish.width is None or wish.height is None:
        return {}
    shape = Fraction(wish.width, wish.height)
    return {ratio: f"{shape.numerator}:{shape.denominator}", resolution: f"{min(wish.width, wish.height)}p"}


def _openai_body(wish: Wish) -> dict[str, Any]:
    return {
        **({"model": wish.model} if wish.model else {}),
        "prompt": wish.prompt,
        **_size(wish),
        "num_frames": wish.frames,
        "fps": wish.fps.numerator if wish.fps.denominator == 1 else float(wish.fps),
        "seed": wish.seed,
        "generate_sound": True,
    }


def _openai_state(job: str, plain: Mapping[str, Any]) -> State:
    status = str(plain.get("status"))
    if status == "completed":
        return State("done", status, f"videos/{job}/content")
    if status in ("queued", "in_progress", "pending", "processing"):
        return State("working", status)
    return _ended(error_words(plain.get("error")) or f"its status is {status!r}")


def _openrouter_body(wish: Wish) -> dict[str, Any]:
    return {
        "model": wish.model,
        "prompt": wish.prompt,
        "duration": wish.whole_seconds,
        **_aspect(wish, "aspect_ratio", "resolution"),
        "generate_audio": True,
        "seed": wish.seed,
    }


def _openrouter_state(job: str, plain: Mapping[str, Any]) -> State:
    state = _openai_state(job, plain)
    return State("done", state.words, f"videos/{job}/content?index=0") if state.kind == "done" else state


def _veo_body(wish: Wish) -> dict[str, Any]:
    parameters = {"durationSeconds": wish.whole_seconds, **_aspect(wish, "aspectRatio", "resolution")}
    return {"instances": [{"prompt": wish.prompt}], "parameters": parameters}


def _veo_state(job: str, plain: Mapping[str, Any]) -> State:
    if not plain.get("done"):
        return State("working", "not done")
    if plain.get("error"):
        return _ended(error_words(plain["error"]))
    answer = plain.get("response", {}).get("generateVideoResponse", {})
    if reasons := answer.get("raiMediaFilteredReasons") or answer.get("raiMediaFilteredCount"):
        return State("refused", "; ".join(reasons) if isinstance(reasons, list) else "filtered by its safety filters")
    samples = answer.get("generatedSamples") or []
    return State("done", "done", samples[0]["video"]["uri"]) if samples else _ended("it is done and names no clip")


def _fal_body(wish: Wish) -> dict[str, Any]:
    fps = wish.fps.numerator if wish.fps.denominator == 1 else float(wish.fps)
    return {"prompt": wish.prompt, "seed": wish.seed, "num_frames": wish.frames, "frames_per_second": fps}


def _fal_state(job: str, plain: Mapping[str, Any]) -> State:
    status = str(plain.get("status"))
    if plain.get("error"):
        return _ended(": ".join(str(plain[name]) for name in ("error_type", "error") if plain.get(name)))
    if status == "COMPLETED":
        return State("done", status, str(plain.get("response_url") or job.removesuffix("/status")))
    return State("working", status) if status in ("IN_QUEUE", "IN_PROGRESS") else _ended(f"its status is {status!r}")


def _fal_result(plain: Mapping[str, Any]) -> State:
    video = plain.get("video") or next(iter(plain.get("videos") or ()), None)
    address = video.get("url") if isinstance(video, Mapping) else video
    return State("done", "done", address) if isinstance(address, str) else _ended("its result names no video")


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


SHAPES: dict[str, Shape] = {
    "openai": Shape(
        submit=lambda model: "videos",
        body=_openai_body,
        identifier="id",
        poll=lambda job: f"videos/{job}",
        state=_openai_state,
        key_header=_bearer,
        listing="videos",
        multipart=True,
        reports=lambda model: "models",
    ),
    "openrouter": Shape(
        submit=lambda model: "videos",
        body=_openrouter_body,
        identifier="id",
        poll=lambda job: f"videos/{job}",
        state=_openrouter_state,
        key_header=_bearer,
        listing=None,
        multipart=False,
        reports=lambda model: "models",
        remark="frames and fps cannot be requested, only whole seconds; the clips are kept as they come",
    ),
    "veo": Shape(
        submit=lambda model: f"models/{model}:predictLongRunning",
        body=_veo_body,
        identifier="name",
        poll=lambda job: job,
        state=_veo_state,
        key_header=lambda key: {"x-goog-api-key": key},
        listing=None,
        multipart=False,
        reports=lambda model: f"models/{model}",
        remark="seed, frames and fps cannot be requested: clips are not reproducible, and are kept as they come",
    ),
    "fal": Shape(
        submit=lambda model: model,
        body=_fal_body,
        identifier="status_url",
        poll=lambda job: job,
        state=_fal_state,
        key_header=lambda key: {"Authorization": f"Key {key}"},
        listing=None,
        multipart=False,
        reports=None,
        remark="each model has fields of its own: prompt, seed, num_frames and frames_per_second are sent, and others "
        "by -M extra=",
        result=_fal_result,
    ),
}


_IDENTITY = ("id", "name", "root", "parent", "version", "baseModelId", "canonical_slug", "revision", "sha256", "digest")
"""Fields of a model's entry that identify the model; others, such as the time it was loaded, do not."""


def model_report(model: str, plain: Any) -> str | None:
    """What a server reports that it runs under a name, as one line of JSON; None if it reports nothing.

    Args:
        model: its name; empty if the server has only one.
        plain: the server's answer to a request of the path `Shape.reports`.
    """
    listed = plain.get("data", [plain]) if isinstance(plain, Mapping) else None
    if not isinstance(listed, list):
        return None
    known = [one for one in listed if isinstance(one, Mapping)]
    if model and len(known) > 1:  # a server with a single model may list it under another name
        known = [one for one in known if model in (one.get("id"), str(one.get("name")).removeprefix("models/"))]
    listed = [{name: one[name] for name in _IDENTITY if isinstance(one.get(name), str | int)} for one in known]
    entries = sorted(json.dumps(one, ensure_ascii=False) for one in listed if one)
    return ", ".join(entries) or None


def checked_job(value: Any) -> str:
    """A job's id that can be part of a path. Raises InputError on any other."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:=/-]{0,1000}", value) or ".." in value:
        msg = f"the server names its job {str(value)[:80]!r}, which cannot be an id"
        raise InputError(msg)
    return value
