"""The evaluation of a run: its scores, and what they were computed from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from avbench.core import Score


@dataclass(frozen=True)
class Evaluation:
    """The fields of scores.json."""

    scores: tuple[Score, ...]
    protocols: Mapping[str, Mapping[str, Any]]
    """By the digests in `Score.protocol`."""
    clips: str
    """Digest of the run's clips when they were scored."""
    files: Mapping[str, str]
    """sha256 of each file that was written with the scores."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """The paths of the reference and of the other run that the scores were computed against, if any."""
    given: Mapping[str, str] = field(default_factory=dict)
    """The same paths as the user gave them, valid in the folder where the command ran."""
    rows: Mapping[str, str] = field(default_factory=dict)
    """Folder of a feature → digest of the rows that the scores were computed from."""

    @property
    def metrics(self) -> str:
        """The names of the metrics, as ``--metric`` takes them."""
        return ",".join(dict.fromkeys(one.metric for one in self.scores))
