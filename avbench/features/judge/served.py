"""Judges whether a clip is physically possible, by a vision-language model behind a server with OpenAI's chat API.

For those who host a model (vLLM, SGLang, llama.cpp) or rent one. Two environment variables say which:

- ``AVBENCH_JUDGE``: ``URL#MODEL``, the address up to and including the version, such as
  ``http://localhost:8000/v1#Qwen/Qwen3-VL-8B-Instruct``;
- ``AVBENCH_JUDGE_KEY``: the key, if the server wants one.

The questions, and how an answer becomes a number, are those of `physics_judge`. Frames are sent as PNG pictures of at
most 768 pixels a side. The server must return log-probabilities (``logprobs``). It is asked for the 20 most probable
first tokens; a choice that is not among them counts as impossible. Each clip is sent four times, and the server may
charge for each.

A server repeats itself only as far as its software does: batches of other users change the last digits of many, and the
operator may replace a model under its name. So the model's name belongs to the protocol, and a number is one answer.
"""

import base64
import math
import os
import re
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from avbench.core import Clip, InputError, Notes, noted
from avbench.features.judge.questions import CHOICES, JudgeProtocol, rated, shown
from avbench.storage.servers import Deadline, Server

ADDRESS, KEY = "AVBENCH_JUDGE", "AVBENCH_JUDGE_KEY"
_SECONDS = 600.0
"""For one answer, waiting for a busy server included."""
_FIRST_SECONDS = 10.0
"""For a sign that the server is there."""
_ROUNDING = 0.01
"""Probabilities may sum to so much more than 1, in a server's short floats."""


@dataclass(frozen=True)
class ServedProtocol(JudgeProtocol):
    """The settings that decide a clip's rating, besides the clip."""

    name: str = "physics-judge-served"
    version: int = 1
    coding: str = "png"
    top: int = 20
    """Most probable first tokens that the server is asked for."""
    model: str = ""
    """Its name at the server."""
    notes: Notes = noted(
        questions="VideoPhy-2's question and one for VideoScore2's third dimension, each with either end as the best.",
        frames="They are sent in their order as pictures, without their times.",
    )


def target() -> tuple[str, str]:
    """Address and model of $AVBENCH_JUDGE. Raises InputError if it is not set, or wrong."""
    wanted = os.environ.get(ADDRESS, "").strip()
    address, _, model = wanted.partition("#")
    if not re.fullmatch(r"https?://[^\s@?]+", address) or not model:
        state = "is not set" if not wanted else "names no server and model"
        msg = (
            f"${ADDRESS} {state}: give URL#MODEL without user, key or query, such as "
            f"http://localhost:8000/v1#Qwen/Qwen3-VL-8B-Instruct; the key, if there is one, in ${KEY}"
        )
        raise InputError(msg)
    return address, model


class _OfTheEnvironment:
    """A descriptor for `protocol`: it fills in the model's name when it is read."""

    def __init__(self, protocol: ServedProtocol) -> None:
        self._protocol = protocol

    def __get__(self, feature: object, kind: type) -> ServedProtocol:
        """Return the protocol. Raises InputError as `target` does."""
        address, model = target()
        return replace(self._protocol, model=model, notes={**self._protocol.notes, "server": address})

    def describe(self) -> dict[str, Any]:
        """The values without the model's name."""
        return self._protocol.describe()


class ServedJudge:
    """The feature ``physics-judge-served``; its values are those of `rated`."""

    protocol: Any = _OfTheEnvironment(ServedProtocol())
    streams = True

    def __init__(self) -> None:
        """Read the environment, and look whether the server is there. Raises InputError as `target` does, or if not."""
        self._address, self._model = target()
        key = os.environ.get(KEY, "").strip() or None
        self._server = Server(self._address, key, {"Authorization": f"Bearer {key}"} if key else {}, first_pause=1.0)
        self._server.ask("GET", "models", Deadline(_FIRST_SECONDS, "sign of the judge"))

    def __call__(self, clip: Clip) -> dict[str, float | np.ndarray]:
        """Judge one clip.

        Raises:
            NotMeasurable: the clip has one frame, or the model's answers are not among the choices.
            InputError: the server cannot be reached, refuses the request, or gives no log-probabilities.
        """
        pictures = [self._picture(frame) for frame in shown(clip, self.protocol)[1]]
        return rated(lambda question: self._probabilities(pictures, question), self.protocol)

    def _picture(self, frame: np.ndarray) -> dict[str, Any]:
        coded = cv2.imencode(f".{self.protocol.coding}", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()
        address = f"data:image/{self.protocol.coding};base64,{base64.b64encode(coded).decode()}"
        return {"type": "image_url", "image_url": {"url": address}}

    def _probabilities(self, pictures: list[dict[str, Any]], question: str) -> np.ndarray:
        asked = [*pictures, {"type": "text", "text": f"These are the frames of a video, in order. {question}"}]
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": asked}],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": self.protocol.top,
        }
        answer = self._server.ask("POST", "chat/completions", Deadline(_SECONDS, "answer"), json=body)
        if not answer.good:
            words = self._server.clean(str(answer.plain))
            msg = f"the judge at {self._address} answers {answer.status}: {words}"
            raise InputError(msg)
        try:
            first = answer.plain["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            likely = [(str(one["token"]).strip(), math.exp(float(one["logprob"]))) for one in first]
            if not sum(chance for _, chance in likely) <= 1 + _ROUNDING:  # nor if one is NaN
                raise ValueError
        except (KeyError, IndexError, TypeError, ValueError, OverflowError):
            msg = (
                f"the judge at {self._address} gives no log-probabilities of its answer's first token, which are "
                "needed (`logprobs` and `top_logprobs` of OpenAI's chat API)"
            )
            raise InputError(msg) from None
        return np.array([sum(chance for token, chance in likely if token == choice) for choice in CHOICES])
