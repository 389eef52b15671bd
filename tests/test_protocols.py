"""Protocols: their hashed values are short identifiers and numbers, and their notes decide nothing."""

import dataclasses

import pytest

from avbench.core import InputError, Notes, Protocol, digest, noted, require_same_protocol, resolve, without_notes
from avbench.curation.measures import CurationProtocol
from avbench.features.table import FEATURES
from avbench.metrics.table import METRICS
from avbench.storage.media import conform


def strings(value):
    """Every string in a plain value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from strings(one)


def protocol_of_class(place):
    """Its protocol, also where its weights are not here."""
    kind = resolve(place)
    held = next(vars(one)["protocol"] for one in kind.__mro__ if "protocol" in vars(one))
    return getattr(held, "_protocol", held)


PROTOCOLS = {name: protocol_of_class(place) for name, place in FEATURES.items()} | {
    "clip-form": conform.ClipForm("clip-form", 1, 8, 8, 8, "8", None, 0),
    "curation": CurationProtocol(),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_hashed_values_are_no_sentences(name):
    protocol = PROTOCOLS[name]
    long = [one for one in strings(protocol.values()) if len(one.split()) > 3]
    assert not long, "a value has at most three words; what it means is a note"
    assert all(note.strip() for note in protocol.notes.values())


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_settings_of_metrics_are_no_sentences(metric):
    assert not [one for one in strings(dict(metric.settings)) if len(one.split()) > 3]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_rewording_a_note_changes_no_digest(name):
    protocol = PROTOCOLS[name]
    reworded = dataclasses.replace(protocol, notes={"source": "in other words"})
    assert reworded.digest == protocol.digest == digest(without_notes(protocol.describe()))
    assert reworded == protocol and hash(reworded) == hash(protocol)
    require_same_protocol(protocol.describe(), reworded.describe(), "two scores")


def test_a_described_protocol_keeps_values_and_notes_apart():
    @dataclasses.dataclass(frozen=True)
    class Made(Protocol):
        name: str = "made"
        version: int = 1
        mono: str = "mean"
        notes: Notes = noted(mono="The channels are averaged.")

    assert Made().values() == {"name": "made", "version": 1, "mono": "mean"}
    assert Made().describe() == {**Made().values(), "notes": {"mono": "The channels are averaged."}}
    assert without_notes({"feature": Made().describe()}) == {"feature": Made().values()}
    assert Made(mono="left").digest != Made().digest


def test_a_protocol_of_before_the_notes_is_refused_by_name():
    """A reference or a run of an older version holds sentences among its values."""
    ours = PROTOCOLS["onsets"].describe()
    older = {**PROTOCOLS["onsets"].values(), "mono": "mean of channels, less its mean over time"}
    with pytest.raises(InputError, match=r"cannot be compared: mono: 'mean, centred' against 'mean of channels"):
        require_same_protocol(ours, older, "onsets and its reference")
