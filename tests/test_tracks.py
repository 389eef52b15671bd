"""Abrupt changes of motion are found where and when they happen, and smooth ones are not."""

import cv2
import numpy as np
import pytest

from avbench.core import Clip
from avbench.features.flow import DISFlow, tracks
from avbench.subsets import loading
from avbench.toyworld import Scene, make_clip


def moving(places, size=96, radius=9):
    """A clip of a patterned disc on a patterned ground, centred at `places` (x, y) in pixels."""
    rng = np.random.default_rng(1)
    ground = rng.integers(90, 130, (size // 8, size // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.float64)
    y, x = np.mgrid[:size, :size]
    frames = []
    for left, top in places:
        dx, dy = x - left, y - top
        inside = np.clip(radius + 0.5 - np.hypot(dx, dy), 0, 1)[..., None]
        pattern = 150 + 90 * np.sin(dx * 0.6) * np.cos(dy * 0.5)
        frames.append(ground * (1 - inside) + inside * pattern[..., None] * [1, 0.8, 0.6])
    return Clip(np.clip(np.array(frames), 0, 255).astype(np.uint8), 10)


def events(clip):
    found = DISFlow()(clip)
    return found["event_seconds"], found["event_x"], found["event_y"]


@pytest.mark.parametrize("blow", [6.0, 6.3, 6.7])
def test_a_bounce_is_found_between_the_frames(blow):
    at = np.arange(14)
    seconds, x, y = events(moving([(20 + 4 * (t if t < blow else 2 * blow - t), 48) for t in at]))
    assert seconds == pytest.approx([blow / 10], abs=0.02)
    assert (x[0], y[0]) == pytest.approx(((20 + 4 * blow) / 96, 0.5), abs=0.12)


def test_what_is_struck_starts_at_once():
    seconds, *_ = events(moving([(20 + 5 * max(0, t - 6.5), 48) for t in range(14)]))
    assert seconds == pytest.approx([0.65], abs=0.02)


@pytest.mark.parametrize(
    "path",
    [
        lambda t: (12 + 5 * t, 48),
        lambda t: (10 + 5 * t, 20 + 0.35 * t**2),
        lambda t: (48, 48),
        lambda t: (48 + 24 * np.sin(t / 3), 48),
    ],
    ids=["straight", "falling", "still", "swinging"],
)
def test_smooth_motion_has_no_event(path):
    seconds, *_ = events(moving([path(t) for t in range(14)]))
    assert len(seconds) == 0


def test_the_time_in_which_events_can_be_found_is_told():
    found = DISFlow()(moving([(12 + 5 * t, 48) for t in range(14)]))
    assert (found["event_from"], found["event_until"]) == (0.2, 1.1)
    short = DISFlow()(moving([(12 + 5 * t, 48) for t in range(5)]))
    assert short["event_from"] == short["event_until"]


def plain(path, fps, seconds=2.0, size=128, radius=15):
    """A plain disc on plain ground whose centre is at `path` of the seconds."""
    y, x = (np.mgrid[: size * 4, : size * 4] + 0.5) / 4
    frames = []
    for k in range(round(seconds * fps)):
        left, top = path(k / fps)
        inside = (np.hypot(x - left, y - top) < radius).astype(np.float32)
        share = cv2.resize(inside, (size, size), interpolation=cv2.INTER_AREA)[..., None]
        frames.append(np.round(share * (220, 120, 60) + (1 - share) * (40, 40, 48)).astype(np.uint8))
    return Clip(np.stack(frames), fps)


@pytest.mark.parametrize("fps", [8, 24, 60])
def test_plain_ground_beside_a_body_has_no_events_at_any_frame_rate(fps):
    """The flow moves the ground near a body along with it, which is no evidence that it moves."""
    for path in (
        lambda t: (64 + 35 * np.cos(2.5 * t), 64 + 35 * np.sin(2.5 * t)),
        lambda t: (64 + 30 * np.sin(3 * t), 64),
        lambda t: (20 + 35 * t, 64),
    ):
        assert len(DISFlow()(plain(path, fps))["event_seconds"]) == 0
    at_walls = DISFlow()(plain(lambda t: (64, 30 + 70 * abs((1.1 * t + 1) % 2 - 1)), fps, 1.7))
    assert at_walls["event_seconds"] == pytest.approx([1 / 1.1], abs=0.02)


@pytest.mark.slow
def test_collisions_of_the_world_are_found_in_time():
    """The first blow of two balls, of sixteen scenes."""
    missed = 0
    scenes = [prompt for prompt in loading.load("toy-object-contact").prompts if prompt.tags["family"] == "collide"]
    for prompt in scenes[:16]:
        clip, truth = make_clip(Scene.of(prompt), 0)
        seconds, *_ = events(clip)
        missed += not np.any(np.abs(seconds - truth.contacts[0].seconds) < 0.03)
    assert missed <= 2


def test_following_only_where_motion_is_fast_enough_finds_the_same_events(monkeypatch):
    clip = moving([(20 + 5 * max(0, t - 6.5), 48) for t in range(14)])
    followed, follow = [], tracks._change
    monkeypatch.setattr(tracks, "_change", lambda *given: followed.append(given) or follow(*given))
    found = DISFlow()(clip)
    some, _ = len(followed), followed.clear()
    monkeypatch.setattr(tracks, "_quickest", lambda flow: np.inf)
    everywhere = DISFlow()(clip)
    assert 0 < some < len(followed) == len(clip.frames) - tracks.SPAN
    assert len(found["event_seconds"]) == 1
    for name, value in found.items():
        assert np.array_equal(value, everywhere[name]), name


def test_the_strength_of_an_event_is_the_change_of_velocity():
    """From 4 pixels a frame to as many back, at 10 frames/s, in diagonals/s."""
    found = DISFlow()(moving([(20 + 4 * (t if t < 6.3 else 12.6 - t), 48) for t in range(14)]))
    assert found["event_strength"] == pytest.approx([8 * 10 / np.hypot(96, 96)], rel=0.02)
