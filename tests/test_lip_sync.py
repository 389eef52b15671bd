"""SyncNet: numbers of its authors' code, faces followed and cut out, and clips that are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_faces import DETECTOR, syncnet_state, talking

from avbench.core import Audio, Clip, InputError, NotMeasurable
from avbench.features.sync import faces, syncnet
from avbench.features.sync.faces import Detector, Finding, followed
from avbench.features.sync.syncnet import SyncNet
from avbench.metrics.table import known_metrics
from avbench.storage import weights
from avbench.storage.media import read_clip, write_clip

GOLDEN = json.loads((Path(__file__).parent / "golden" / "syncnet.json").read_text())


@pytest.fixture(scope="module")
def feature(tmp_path_factory):
    folder = tmp_path_factory.mktemp("syncnet")
    state = {name: torch.from_numpy(value) for name, value in syncnet_state(GOLDEN["shapes"]).items()}
    torch.save(state, folder / "syncnet_v2.model", _use_new_zipfile_serialization=False)  # as its authors did
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVBENCH_WEIGHTS", str(folder / "cache"))
        weights.provide("syncnet", folder / "syncnet_v2.model")
        weights.provide("yunet", DETECTOR)
        yield SyncNet()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_numbers_are_those_of_its_authors(feature, seed):
    right = GOLDEN["values"][str(seed)]
    found = feature(talking(seed, **right["options"]))
    assert (found["offset"], found["frames"]) == (right["offset"], right["frames"])
    assert found["confidence"] == pytest.approx(right["confidence"], abs=GOLDEN["tolerance"])
    assert found["distance"] == pytest.approx(right["distance"], abs=GOLDEN["tolerance"])


def test_a_face_is_cut_out_of_frames_in_their_file(tmp_path):
    write_clip(talking(0), tmp_path / "a.mkv")
    stored, found = read_clip(tmp_path / "a.mkv", most_held=0), Detector(DETECTOR, Finding())
    face = followed([found.boxes(frame) for frame in stored.frames], Finding())[0]
    cut = faces.cut_out(stored.frames, face, Finding())
    assert cut.shape == (60, 224, 224, 3)
    np.testing.assert_array_equal(cut, faces.cut_out(talking(0).frames, face, Finding()))


@pytest.mark.slow
def test_it_sees_the_mouth_and_hears_the_voice(feature):
    """The numbers of a clip change if its frames, or its sound, are those of another time."""
    one = talking(0)
    known = GOLDEN["values"]["0"]["distance"]
    backwards = Clip(one.frames, 25, Audio(np.ascontiguousarray(one.audio.waveform[:, ::-1]), 16000))
    assert abs(feature(backwards)["distance"] - known) > 10 * GOLDEN["tolerance"]
    blank = one.frames.copy()
    blank[:, 80:100, :, :2] = 0
    assert abs(feature(Clip(blank, 25, one.audio))["distance"] - known) > 10 * GOLDEN["tolerance"]


def test_clips_that_cannot_be_measured_are_refused(feature):
    one = talking(0)
    for clip, reason in (
        (Clip(one.frames, 25), "no sound"),
        (Clip(one.frames, 25, Audio(0 * one.audio.waveform, 16000)), "silent"),
        (Clip(one.frames[..., ::-1] // 2, 25, one.audio), "shows no face"),
        (talking(0, until=49), r"no face is followed for longer than 1\.96 s; SyncNet needs 2 s"),
        (talking(0, side=80), r"the face has \d+\.\d pixels; SyncNet needs more than 100"),
        (Clip(one.frames, 25, Audio(one.audio.waveform[:, :31000], 16000)), r"has 1\.92 s of sound; SyncNet needs 2 s"),
    ):
        with pytest.raises(NotMeasurable, match=reason):
            feature(clip)


def test_a_face_is_followed_over_gaps_and_beside_another():
    """Two faces cross no other; one is not detected for three frames, and comes back after it was lost."""
    left = [np.array([10.0 + k, 10, 60 + k, 60]) for k in range(40)]
    right = [np.array([200.0, 20, 240, 60])] * 40
    found = [np.array([right[k], left[k]]) for k in range(40)]
    for lost in (5, 6, 7):
        found[lost] = found[lost][:1]
    tracks = followed(found, Finding())
    assert [(one.first, len(one.boxes)) for one in tracks] == [(0, 40), (0, 40)]
    np.testing.assert_allclose(tracks[1].boxes, left)
    assert tracks[1].pixels == 50
    late = [*found[:5], *([np.zeros((0, 4))] * 30), *found[35:]]
    assert [(one.first, len(one.boxes)) for one in followed(late, Finding())] == [(0, 5), (0, 5), (35, 5), (35, 5)]


def test_another_place_is_another_face():
    found = [np.array([[10.0, 10, 60, 60]]), np.array([[37.0, 10, 87, 60]]), np.array([[38.0, 10, 88, 60]])]
    assert [(one.first, len(one.boxes)) for one in followed(found, Finding())] == [(0, 1), (1, 2)]
    assert faces.overlap(found[0][0], found[1][0]) == pytest.approx(23 / 77)


def test_the_longest_face_is_measured_and_of_equals_the_largest():
    small, large = np.array([0.0, 0, 120, 120]), np.array([200.0, 0, 350, 150])
    protocol = syncnet.SyncNetProtocol()
    both = [np.array([small, large])] * 60
    assert syncnet._measured_face(both, protocol).pixels == 150
    assert syncnet._measured_face([*both, *[small[None]] * 5], protocol).pixels == 120


def test_a_detector_scales_large_frames_and_back():
    """Of a frame that is reduced to the detector's size, the box has the coordinates of the frame."""
    frame = np.zeros((256, 320, 3), np.uint8)
    frame[40:240, 60:260, 1] = 255
    (box,) = Detector(DETECTOR, Finding(longest=160)).boxes(frame)
    np.testing.assert_allclose(box, [60, 40, 260, 240], atol=0.5)
    assert len(Detector(DETECTOR, Finding(longest=160)).boxes(0 * frame)) == 0


def test_a_file_that_is_no_detector_or_no_syncnet_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    (tmp_path / "other.onnx").write_bytes(b"\x08\x08nothing that OpenCV reads")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    weights.provide("yunet", tmp_path / "other.onnx")
    weights.provide("syncnet", tmp_path / "other.pth")
    with pytest.raises(InputError, match="cannot be read as a YuNet"):
        SyncNet()
    weights.provide("yunet", DETECTOR)
    with pytest.raises(InputError, match="the SyncNet checkpoint does not fit"):
        SyncNet()


def test_the_metrics_are_distance_and_confidence():
    columns = {"distance": np.array([7.5, 8.0]), "confidence": np.array([6.0, 1.5])}
    np.testing.assert_array_equal(known_metrics()["lip_sync_distance"].of_clips(columns), [7.5, 8.0])
    np.testing.assert_array_equal(known_metrics()["lip_sync_confidence"].of_clips(columns), [6.0, 1.5])
