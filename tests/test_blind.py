"""Blind votes stay blind: no clip is given away by its sound, loudness, shape, length, name, or order of loading."""

import json

import numpy as np
import pytest
from browsing import Opened, wait_until
from command_line import run_avbench

from avbench.comparison import votes
from avbench.core import Audio, Clip
from avbench.report.page import clips
from avbench.storage.media import write_clip

RATE = 16_000
LOADED = "!bench.root.classList.contains('loading')"
SHOWN = """() => {
  const arms = [...document.querySelectorAll('#player .arm')], videos = arms.map(one => one.querySelector('video'));
  const box = (one) => [one.clientWidth, one.clientHeight], pair = pairNow();
  return {
    prompt: items(pair.at)[pair.item].prompt.id, made: pair.made, html: document.getElementById('player').outerHTML,
    stages: arms.map(one => box(one.querySelector('.stage'))), videos: videos.map(box),
    volumes: videos.map(one => one.volume), muted: videos.map(one => one.muted),
    canvases: arms.filter(one => one.querySelector('canvas')).length,
    radios: [...document.querySelectorAll('#player [type=radio]')].filter(one => one.checkVisibility()).length,
    frames: +document.querySelector('#player .scrubber').max + 1,
  };
}"""


def clip(seed, size=(64, 64), frames=16, loudness=None):
    """Moving noise of (width, height), with a tone of this loudness in dBFS, or without sound."""
    rng = np.random.default_rng(seed)
    tile = rng.integers(40, 200, (size[1], size[0], 3), np.uint8)
    pictures = np.stack([np.roll(tile, k, axis=1) for k in range(frames)])
    if loudness is None:
        return Clip(pictures, 8)
    time = np.arange(frames * RATE // 8) / RATE
    tone = 10 ** (loudness / 20) * np.sin(2 * np.pi * 800 * time)
    return Clip(pictures, 8, Audio(tone[None].astype(np.float32), RATE))


CLIPS = {
    "alike": ({"loudness": -20}, {"loudness": -20}),
    "mute": ({"loudness": -20}, {}),
    "silent": ({"loudness": -20}, {"loudness": -200}),
    "neither": ({}, {}),
    "quiet": ({"loudness": -14}, {"loudness": -26}),
    "wide": ({"size": (128, 64), "loudness": -20}, {"loudness": -20}),
    "short": ({"loudness": -20}, {"frames": 10, "loudness": -20}),
}
"""Prompt → what is special about each model's clip."""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of two folders of clips, scored as a user scores them."""
    place = tmp_path_factory.mktemp("blind")
    for model, name in enumerate(("model-alpha", "model-beta")):
        (place / name).mkdir()
        for number, (prompt, kinds) in enumerate(CLIPS.items()):
            write_clip(clip(2 * number + model, **kinds[model]), place / name / f"{prompt}.mkv")
    command = ["score", place / "model-alpha", place / "model-beta", "--metric", "loudness", "--workers", "0"]
    done = run_avbench(*command, "--out", place / "out", code=None)
    assert (place / "out" / "report.html").exists(), done.output
    return place / "out" / "report.html"


@pytest.fixture(scope="module")
def rater(report, browser):
    opened = Opened(browser, report, "#vote")
    yield opened
    opened.context.close()


@pytest.fixture(scope="module")
def seen(rater, tmp_path_factory):
    """What the rater saw of each pair, and the exported votes."""
    tab, found = rater.page, {}
    for _ in CLIPS:
        wait_until(tab, LOADED)
        tab.keyboard.press("1")  # sound of the first clip, where there is a choice
        one = tab.evaluate(SHOWN)
        found[one["prompt"]] = one
        tab.keyboard.press("ArrowLeft")
    with tab.expect_download() as waiting:
        tab.keyboard.press("e")
    path = tmp_path_factory.mktemp("votes") / "votes.json"
    waiting.value.save_as(path)
    assert not rater.complaints
    return found, path


@pytest.mark.browser
def test_a_rater_sees_no_name(rater, seen):
    tab = rater.page
    assert "model" not in tab.title() and "model" not in tab.locator("body").inner_text()
    for one in seen[0].values():
        assert "model-" not in one["html"] and "sha256" not in one["html"] and "media/" not in one["html"]
        assert one["canvases"] == 0, "a waveform would tell who has what sound"


@pytest.mark.browser
def test_both_clips_have_one_frame_and_one_length(seen):
    for prompt, one in seen[0].items():
        assert one["stages"][0] == one["stages"][1] == one["videos"][0] == one["videos"][1], prompt
    wide, short = seen[0]["wide"], seen[0]["short"]
    width, height = wide["stages"][0]
    assert width / height == pytest.approx(2**0.5, rel=0.02) and wide["made"]["aspect"] == pytest.approx(
        2**0.5, abs=1e-3
    )
    assert short["frames"] == 10 and short["made"]["seconds"] == 1.25
    assert seen[0]["alike"]["made"] == {"muted": False, "aspect": None, "seconds": None, "quieter_db": None}


@pytest.mark.browser
def test_both_sound_equally_loud_or_neither_sounds(seen):
    for prompt in ("mute", "silent", "neither"):
        one = seen[0][prompt]
        assert one["muted"] == [True, True] and one["radios"] == 0, prompt
        assert one["made"]["muted"] is (prompt != "neither"), "nothing was done where neither has sound"
    assert seen[0]["alike"]["muted"] == [False, True] and seen[0]["alike"]["volumes"] == [1, 1]
    quiet = seen[0]["quiet"]
    assert max(quiet["volumes"]) == 1 and min(quiet["volumes"]) == pytest.approx(10 ** (-12 / 20), rel=0.1)
    assert quiet["made"]["quieter_db"] == pytest.approx(12, abs=1)


@pytest.mark.browser
def test_no_clip_is_seen_before_the_other_and_an_unseen_pair_gets_no_vote(report, browser):
    opened = Opened(browser, report, "#vote")
    tab = opened.page
    wait_until(tab, LOADED)
    arms = "getComputedStyle(document.querySelector('#player .arms')).visibility"
    assert tab.evaluate(f"(nextPair(), vote('left'), [{arms}, ballot.votes.length])") == ["hidden", 0]
    wait_until(tab, LOADED)
    ready = tab.evaluate("[...document.querySelectorAll('#player video')].every(one => one.readyState >= 2)")
    assert ready and tab.locator("#player .arms").is_visible()
    opened.context.close()


@pytest.mark.browser
def test_the_votes_say_what_was_done_and_a_reveal_ends_the_ballot(rater, seen):
    plain = json.loads(seen[1].read_text())
    done = {one["prompt"]: one["conformed"] for one in plain["votes"]}
    assert done == {prompt: one["made"] for prompt, one in seen[0].items()}
    assert set(votes.read([seen[1]])["vote"]) == {"left"}
    output = " ".join(run_avbench("votes", seen[1]).output.split())
    assert "of 7 votes' pairs 2 played without sound" in output and "1 cropped to one shape" in output
    tab = rater.page
    tab.keyboard.press("u")
    wait_until(tab, LOADED)
    tab.evaluate("reveal()")
    assert tab.locator("[data-vote]:disabled").count() == 3 and tab.locator("#undo").is_disabled()


def test_loudness_is_known_of_short_sounds_and_none_where_nothing_is_heard():
    whole, short = clips._loudness(clip(0, loudness=-20)), clips._loudness(clip(0, frames=2, loudness=-20))
    assert whole == pytest.approx(-23, abs=1) and short == pytest.approx(whole, abs=3)
    assert clips._loudness(clip(0)) is None and clips._loudness(clip(0, loudness=-200)) is None
