"""Finds values that other runs have of equal clips under the same protocols, so that such a clip is measured once."""

from collections.abc import Collection, Iterable

from avbench.core import Protocol, Row, Value
from avbench.storage.runs.folder import RunFolder


class OtherRuns:
    """Runs whose values of equal clips are taken over."""

    def __init__(self, runs: Iterable[RunFolder], clips: Collection[str], wanted: Collection[str]) -> None:
        """Look into the runs that hold one of these clips.

        Args:
            runs: they may be without rows.
            clips: the sha256 of each clip that is to be measured.
            wanted: what features see of these clips (`Row.clip_sha256`).
        """
        self._runs = [run for run in runs if any(one.sha256 in clips for one in run.samples().values())]
        self._wanted = wanted
        self._read: dict[str, dict[str, Row]] = {}
        """The protocol's digest → what a feature saw → its row."""

    def find(self, protocol: Protocol, seen: str) -> tuple[dict[str, Value], str | None] | None:
        """The values of an input under a protocol, with the name of the GPU that computed them, or None."""
        if protocol.digest not in self._read:
            rows = (row for run in self._runs for row in run.stream_rows(protocol))
            self._read[protocol.digest] = {one.clip_sha256: one for one in rows if one.clip_sha256 in self._wanted}
        row = self._read[protocol.digest].get(seen)
        return None if row is None or row.values is None else ({**row.values}, row.gpu)
