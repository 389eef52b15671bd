"""Measures how well abrupt changes of motion, and onsets, detect contacts whose times are known.

    python benchmarks/contacts.py greatest-hits:FOLDER --limit 100

prints a table; it is for who has such a set, as `contact_table` of motion_and_sync.py is for the embedded world. A
contact is found where an event, or an onset, lies within 0.1 s of it and of no other; one is right where any contact
lies so near. Contacts outside of the span in which an event could be found do not count.
"""

import argparse
import itertools
import sys

import numpy as np
from scipy.optimize import linear_sum_assignment

from avbench.core import MediaError, NotMeasurable
from avbench.features.audio.onsets import Onsets
from avbench.features.flow import DISFlow
from avbench.metrics.sync import TOLERANCE_SECONDS
from avbench.storage.media import read_clip
from avbench.storage.workers.worker_pool import one_thread
from avbench.subsets.datasets import opened


def held_against(truth: np.ndarray, found: np.ndarray) -> tuple[int, int, int, int, list[float]]:
    """Contacts, those found, what was found, how much of it is right, and by how many seconds the found are late."""
    apart = np.subtract.outer(truth, found)
    rows, at = linear_sum_assignment(np.minimum(np.abs(apart), 1))
    late = -apart[rows, at]
    near = np.abs(apart).min(axis=0, initial=np.inf) <= TOLERANCE_SECONDS
    hits = np.abs(late) <= TOLERANCE_SECONDS
    return len(truth), int(hits.sum()), len(found), int(near.sum()), list(late[hits])


def row(name: str, counts: list[tuple[int, int, int, int, list[float]]]) -> str:
    """A line of the table."""
    contacts, hits, found, right = (sum(one[index] for one in counts) for index in range(4))
    late = list(itertools.chain(*(one[4] for one in counts)))
    recall = f"{hits / contacts:.2f}" if contacts else "–"
    precision = f"{right / found:.2f}" if found else "–"
    error = f"{1000 * np.median(late):+.0f} ms" if late else "–"
    return f"| {name} | {contacts} | {recall} | {found} | {precision} | {error} |"


def main() -> None:
    """Measure the pool's clips whose contacts are known, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pool", help="reader:FOLDER, of a reader that knows contacts")
    parser.add_argument("--limit", type=int, default=50, help="clips")
    asked = parser.parse_args()
    one_thread()
    flow, onsets = DISFlow(), Onsets()
    seen: list[tuple[int, int, int, int, list[float]]] = []
    heard: list[tuple[int, int, int, int, list[float]]] = []
    known = (one for one in opened(asked.pool).entries() if one.contacts_seconds is not None and one.path)
    for entry in itertools.islice(known, asked.limit):
        assert entry.path is not None and entry.contacts_seconds is not None
        try:
            clip = read_clip(entry.path)
            motion, sound = flow(clip), onsets(clip)
        except (MediaError, NotMeasurable) as error:
            sys.stderr.write(f"{entry.id}: left out: {error}\n")
            continue
        span = motion["event_from"], motion["event_until"]
        contacts, begun = (
            np.array([one for one in times if span[0] <= one <= span[1]])
            for times in (entry.contacts_seconds, sound["onset_seconds"])
        )
        seen.append(held_against(contacts, np.asarray(motion["event_seconds"])))
        heard.append(held_against(contacts, begun))
    lines = [
        f"{len(seen)} clips",
        "| contacts by | contacts | recall | found | precision | late by, median |",
        "|---" + "|--:" * 5 + "|",
        row("abrupt changes of motion", seen),
        row("onsets", heard),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
