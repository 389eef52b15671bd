"""Bodies are found again in pixels."""

import numpy as np
import pytest

from avbench.toyworld import FAMILIES, make_clip, random_scene
from avbench.toyworld.inverse import bodies
from avbench.toyworld.scene import COLOURS


def painted(*squares):
    """A grey frame with squares (colour, x, y, side)."""
    frame = np.full((64, 64, 3), 128, np.uint8)
    for colour, x, y, side in squares:
        frame[y : y + side, x : x + side] = COLOURS[colour]
    return frame


@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_is_told_from_the_others(colour):
    (found,) = bodies(painted((colour, 10, 20, 7)))
    assert (found.colour, found.area, found.centre) == (colour, 49, (13.0, 23.0))


def test_the_largest_comes_first_and_touching_ones_are_one():
    red, blue = "red", "blue"
    found = bodies(painted((red, 2, 2, 5), (blue, 30, 30, 9), (red, 50, 10, 4), (red, 54, 10, 4)))
    assert [(body.colour, body.area) for body in found] == [(blue, 81), (red, 32), (red, 25)]


def test_grey_and_specks_are_none():
    assert bodies(painted()) == []
    assert bodies(painted(("red", 5, 5, 2))) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_the_world_shows_the_colours_of_its_bodies(family):
    scene = random_scene(family, np.random.default_rng(0))
    clip, _ = make_clip(scene, 0)
    seen = {body.colour for frame in clip.frames for body in bodies(frame)}
    assert seen == {body["colour"] for body in scene.to_json()["bodies"]}
