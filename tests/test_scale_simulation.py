"""The simulation of docs/scale.md has the times that arithmetic gives where nothing is random."""

from dataclasses import replace

import pytest

from benchmarks.scale_simulation import Setting, limits, simulated, stages

EVEN = Setting(
    clips=6400,
    gpus=8,
    parts=64,
    sampling_seconds=90.0,
    sampling_spread=0.0,
    start_seconds=60.0,
    writing_seconds=2.0,
    measuring_seconds=14.0,
    cores_per_gpu=8,
    hours_between_failures=1e12,
)


def test_even_parts_without_failures_take_what_arithmetic_gives():
    array = simulated(EVEN)
    of_a_part = 60 + 100 * (90 + (2 + 14) / 8)
    assert array.hours == pytest.approx(8 * of_a_part / 3600)
    assert array.busy_hours == pytest.approx(6400 * 90 / 3600)
    assert array.failures == 0


def test_a_part_too_many_makes_the_others_wait():
    assert simulated(replace(EVEN, parts=9)).hours > 1.5 * simulated(replace(EVEN, parts=8)).hours


def test_a_failure_costs_the_clip_in_progress_and_the_wait_but_not_the_clips_made():
    failing = simulated(replace(EVEN, hours_between_failures=5.0))
    lost = failing.failures * (600 + 60 + 45) / 3600 / EVEN.gpus
    assert failing.failures > 5
    assert failing.hours == pytest.approx(simulated(EVEN).hours + lost, rel=0.2)
    assert failing.busy_hours == pytest.approx(simulated(EVEN).busy_hours)


def test_limits_are_reached_where_their_amounts_say():
    for what, amount, clips in limits(EVEN):
        ((_, again, _),) = (one for one in limits(replace(EVEN, clips=round(clips))) if one[0] == what)
        limit = float(what.split("limit ")[1])
        assert again == pytest.approx(limit, rel=1e-3)
        assert amount < limit or clips < EVEN.clips


def test_every_stage_grows_with_the_clips():
    twice = replace(EVEN, clips=2 * EVEN.clips)
    for (stage, once), (_, more) in zip(stages(EVEN, simulated(EVEN)), stages(twice, simulated(twice)), strict=True):
        assert more == pytest.approx(2 * once, rel=0.02), stage
