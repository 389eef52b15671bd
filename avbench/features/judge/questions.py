"""Asks a vision-language model whether what a clip shows is physically possible, and turns its answers into numbers.

Sources of the questions: PROMPT_PHYSICS of VideoPhy-2's template.py (Bansal et al., 2025), and the third dimension of
VideoScore2 (He et al., 2025). qwen.py describes how they are used.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from avbench.core import Clip, NotMeasurable, Protocol, digest
from avbench.features.limits import require_frames

CHOICES = ("1", "2", "3", "4", "5")


@dataclass(frozen=True)
class Question:
    """What the model is asked."""

    text: str
    best: int
    """The best answer: 5, or 1 where the scale is reversed."""


_LAWS = "Does this video adhere to the physical laws? Rate the video on a scale from 1 to 5, where "
_SENSE = (
    "You are an expert for evaluating AI-generated videos. Rate the physical/common-sense consistency of this video, "
    "its naturalness and physics plausibility, on a scale from 1 to 5, where "
)
_ANSWER = " Answer with one digit only."

QUESTIONS = (
    Question(f"{_LAWS}5 means full compliance and 1 means significant violations.{_ANSWER}", 5),
    Question(f"{_LAWS}1 means full compliance and 5 means significant violations.{_ANSWER}", 1),
    Question(f"{_SENSE}5 is the best and 1 is the worst.{_ANSWER}", 5),
    Question(f"{_SENSE}1 is the best and 5 is the worst.{_ANSWER}", 1),
)


@dataclass(frozen=True, kw_only=True)
class JudgeProtocol(Protocol):
    """The settings that decide a clip's rating, besides the clip and the model."""

    frames: int = 16
    """At most; evenly spaced from the first to the last."""
    longest: int = 768
    """Pixels. A frame with a longer side is reduced to it."""
    reduced: str = "area"
    questions: int = len(QUESTIONS)
    questions_sha256: str = digest([[one.text, one.best] for one in QUESTIONS])
    """Of their words and best answers."""
    least_mass: float = 0.5
    """Of the probability, which the choices must have together in every answer."""
    output: str = "expected rating, 1-5"


def shown(clip: Clip, protocol: JudgeProtocol) -> tuple[list[int], np.ndarray]:
    """The frames that the model sees: their places in the clip, and ``[frames, height, width, 3]`` uint8.

    Raises:
        NotMeasurable: the clip has one frame only.
    """
    length = len(clip.frames)
    require_frames(clip.frames, 2, "the judge needs")
    places = np.unique(np.linspace(0, length - 1, min(length, protocol.frames)).round().astype(int))
    sides = clip.frames.shape[1:3]
    smaller = min(1.0, protocol.longest / max(sides))
    height, width = (max(1, round(side * smaller)) for side in sides)
    frames = [clip.frames[place] for place in places]
    if smaller < 1:
        frames = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames]
    return places.tolist(), np.stack(frames)


def rated(ask: Callable[[str], np.ndarray], protocol: JudgeProtocol) -> dict[str, float | np.ndarray]:
    """Ask all questions. Values:

    - ``rating``: mean over the questions, 1 to 5; 5 is the best.
    - ``spread``: standard deviation over the questions.
    - ``mass``: probability that the choices have together, in the answer where it is smallest.
    - ``ratings``: the rating of each question, ``[questions]``.
    - ``probabilities``: of each choice, ``[questions, choices]``.

    Args:
        ask: a question → the probability of each choice, ``[choices]``.
        protocol: the settings.

    Raises:
        NotMeasurable: an answer is not among the choices.
    """
    found = np.array([ask(question.text) for question in QUESTIONS], dtype=np.float64)
    mass = found.sum(axis=1)
    if mass.min() < protocol.least_mass:
        msg = (
            f"the judge does not answer with a digit from 1 to 5: these have {100 * mass.min():.2g} % of the "
            f"probability of its answer, and {100 * protocol.least_mass:g} % are needed"
        )
        raise NotMeasurable(msg)
    means = found @ np.arange(1, len(CHOICES) + 1) / mass
    ratings = np.where([question.best == 1 for question in QUESTIONS], len(CHOICES) + 1 - means, means)
    return {
        "rating": float(ratings.mean()),
        "spread": float(ratings.std(ddof=1)),
        "mass": float(mass.min()),
        "ratings": ratings,
        "probabilities": found,
    }
