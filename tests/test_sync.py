"""Agreement of events and onsets, what chance gives, and how late the sound is."""

import itertools

import numpy as np
import pytest

from avbench.core import Key, Row, columns
from avbench.features.audio.onsets import Onsets
from avbench.features.flow import DISFlow, tracks
from avbench.generation.providers.toyworld import CHANGES
from avbench.metrics import sync
from avbench.metrics.table import known_metrics
from avbench.subsets import loading
from avbench.toyworld import Scene, make_clip

SECONDS = 4.0


def table(*clips):
    """Columns of clips that are (events, onsets)."""
    rows = []
    for index, (events, onsets) in enumerate(clips):
        values = {
            "event_seconds": np.array(events, dtype=float),
            "event_strength": np.ones(len(events)),
            "onset_seconds": np.array(onsets, dtype=float),
            "onset_level": np.ones(len(onsets)),
            "event_from": 0.2,
            "event_until": SECONDS - 0.3,
            "sound_seconds": SECONDS,
        }
        rows.append(Row(Key("s", f"{index:04d}", 0), "0" * 64, values))
    return columns(rows)[1]


def test_what_falls_together_agrees():
    assert sync.sync_agreement(table(([1, 2, 3], [1.05, 2, 2.95]))) == pytest.approx([1.0])
    assert sync.sync_agreement(table(([1, 2, 3], [1.5, 2.5]))) == pytest.approx([0.0])
    assert sync.sync_agreement(table(([1, 2], [1, 2.5, 3]))) == pytest.approx([2 / 5])
    assert sync.sync_agreement(table(([3, 1, 2], [2.95, 1.05, 2]))) == pytest.approx([1.0]), "in whatever order"


@pytest.mark.parametrize(
    ("strengths", "levels", "lag"),
    [
        ((10, 1), (1, 1), 200),
        ((1, 10), (1, 1), 300),
        ((1, 1), (0.01, 1), 300),
        ((1, 1.02), (1, 1), 200),  # 3 % for a tenth of a second more
        ((1, 1.04), (1, 1), 300),
        ((1, 1), (1, 1.05), 200),  # an onset weighs as the root of its level
        ((1, 1), (1, 1.1), 300),
    ],
)
def test_the_lag_is_that_of_strong_events_and_loud_onsets(strengths, levels, lag):
    found = dict(table(([1, 2], [1.2, 2.3])))
    found["event_strength"], found["onset_level"] = np.array([strengths], float), np.array([levels], float)
    assert sync.sync_lag(found) == pytest.approx([lag])


def test_onsets_outside_the_time_of_events_do_not_count():
    assert sync.sync_agreement(table(([1, 2], [0.0, 1, 2, 3.95]))) == pytest.approx([1.0])


def test_the_reason_says_where_an_onset_is_looked_for():
    assert np.isnan(sync.sync_excess(table(([1], [0.05])))).all(), "it has an onset and an event"
    for name in ("sync_excess", "sync_agreement", "sync_p", "sync_excess_raft"):
        assert known_metrics()[name].unable.startswith("from the third frame to the third last they have no onset")


def test_an_onset_just_outside_the_time_of_events_counts():
    """Events are found from 0.2 to 3.7 s, and onsets within 0.1 s of them are within reach."""
    assert sync.sync_agreement(table(([0.22, 2, 3.68], [0.15, 2, 3.75]))) == pytest.approx([1.0])


def test_a_lag_of_half_a_second_is_found_wherever_its_onset_lies():
    late, early, reach = ([3.6], [3.95]), ([0.3], [0.05]), ([1.0, 2.5], [1.49, 2.99])
    assert sync.sync_lag(table(late, early, reach)) == pytest.approx([350, -250, 490])
    fine, nearer = ([1.0, 2.5], [1.135, 2.635]), ([1.0, 2.0], [0.8, 1.7])
    assert sync.sync_lag(table(fine, nearer)) == pytest.approx([135, -200])


def test_the_sound_of_a_very_short_clip_is_shifted_by_a_quarter_of_it_at_least():
    """Of 99 offsets from 0.09 to 0.27 s of 0.36 s, 39 leave the onset in 0.05 ... 0.3 s, and twelve of them, six at
    either end, within 0.1 s of the event.
    """
    short = table(([0.18], [0.18])) | {"event_from": [0.05], "event_until": [0.3], "sound_seconds": [0.36]}
    assert sync.sync_excess(short) == pytest.approx([1 - 12 / 39])


def test_one_onset_is_matched_once():
    assert sync.sync_agreement(table(([1, 1.05, 1.08], [1.04]))) == pytest.approx([2 / 4])


def test_the_assignment_matches_as_many_as_can_be():
    """Against every assignment there is."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        events, onsets = (np.sort(rng.uniform(0.5, 1.5, rng.integers(1, 5))) for _ in range(2))
        most = 0
        few, many = sorted((events, onsets), key=len)
        for order in itertools.permutations(range(len(many)), len(few)):
            most = max(most, int(np.sum(np.abs(few - many[list(order)]) <= sync.TOLERANCE_SECONDS)))
        expected = 2 * most / (len(events) + len(onsets))
        assert sync.sync_agreement(table((events, onsets))) == pytest.approx([expected])


@pytest.mark.parametrize("lag", [-0.3, -0.12, 0.0, 0.2, 0.4])
def test_the_lag_is_read_back_with_its_sign(lag):
    events = np.array([0.9, 1.4, 2.2, 2.9])
    found = table((events, events + lag))
    assert sync.sync_lag(found) == pytest.approx([1000 * lag], abs=6)
    assert sync.sync_offset(found) == pytest.approx([1000 * abs(lag)], abs=6)


def test_chance_is_the_mean_over_99_offsets_of_the_sound():
    """Between 0.2 and 3.8 s of 4 s: five of the offsets lie within 0.1 s of 1 s, five of 2 s, and five of 3 s."""
    same = table(([1, 2, 3], [1, 2, 3]))  # each of these 15 gives two matches of three events and two onsets
    assert sync.sync_excess(same) == pytest.approx([1 - 15 * (2 * 2 / (3 + 2)) / 99])
    apart = table(([1.0], [2.0]))  # the five near 3 s bring the onset to 1 s; 14 from 1.7 to 2.2 s bring it outside
    assert sync.sync_excess(apart) == pytest.approx([0 - 5 / 85])
    assert sync.sync_p(table(([2.0], [2.0]))) == [1 / 86] and sync.sync_p(apart) == [1]


def test_silence_after_the_picture_changes_nothing():
    """Shifted onsets that fall into it would find no event, and chance would seem smaller."""
    assert sync._FRAMES_BEFORE == tracks.SPAN // 2
    right = table(([1, 2, 3], [1, 2.1, 2.7]))
    longer = {**right, "sound_seconds": np.array([16.0])}
    sounding = {**table(([1, 2, 3], [1, 2.1, 2.7, 10.5])), "sound_seconds": np.array([16.0])}
    for number in (sync.sync_excess, sync.sync_p, sync.sync_agreement):
        assert number(longer) == number(sounding) == pytest.approx(number(right))


def test_sound_that_ends_a_little_after_the_picture_is_shifted_around_its_own_length():
    """In 4.08 s, five offsets bring either onset to 1 s, while the other is within reach as well: 2 · 1 / (1 + 2)."""
    clip = {**table(([1.0], [2.0, 4.05])), "sound_seconds": np.array([4.08])}
    assert sync.sync_excess(clip) == pytest.approx([0 - 10 * (2 / 3) / 99])


def test_a_sound_that_is_near_no_event_has_no_lag():
    assert (
        np.isnan(sync.sync_lag(table(([1.0], [2.5])))).all() and np.isnan(sync.sync_offset(table(([1.0], [2.5])))).all()
    )


@pytest.mark.parametrize(("rate", "onsets"), [(8, 1), (8, 2), (24, 1)])
def test_chance_is_0_in_short_clips_with_few_onsets(rate, onsets):
    """Two seconds: only clips whose onset lies in the time of events are measured, so only such shifts are chance."""
    rng = np.random.default_rng(rate + onsets)
    found = table(*((rng.choice(np.arange(2, 2 * rate - 2), 2) / rate, rng.uniform(0, 2, onsets)) for _ in range(4000)))
    span = {"event_from": 2 / rate, "event_until": 2 - 3 / rate, "sound_seconds": 2.0}
    excess = sync.sync_excess(found | {name: np.full(4000, value) for name, value in span.items()})
    assert abs(np.nanmean(excess)) < 0.02, "0.045 with every shift, at 8 frames per second"


def test_a_clip_that_no_shift_can_be_judged_of_has_no_chance():
    """The only time of events is 0.1 s, between two offsets of the onset."""
    narrow = table(([0.1], [0.1])) | {"event_from": [0.1], "event_until": [0.1], "sound_seconds": [0.5]}
    for metric in (sync.sync_excess, sync.sync_p):
        assert np.isnan(metric(narrow)).all()


@pytest.mark.statistical
def test_chance_has_no_excess():
    rng = np.random.default_rng(2)
    clips = [(np.sort(rng.uniform(0.3, 3.6, 4)), np.sort(rng.uniform(0, 4, 5))) for _ in range(300)]
    excess, p = sync.sync_excess(table(*clips)), sync.sync_p(table(*clips))
    assert abs(excess.mean()) < 3 * excess.std() / np.sqrt(len(excess))
    assert 0.02 < np.mean(p < 0.05) + 0.02 < 0.1


def test_sound_that_belongs_to_the_picture_has():
    rng = np.random.default_rng(3)
    clips = []
    for _ in range(50):
        events = np.sort(rng.uniform(0.3, 3.6, 4))
        clips.append((events, events + rng.normal(0, 0.02, 4)))
    assert np.mean(sync.sync_excess(table(*clips)) > 0.4) > 0.9
    assert np.median(sync.sync_p(table(*clips))) < 0.05


@pytest.mark.parametrize("clip", [([], [1.0, 2.0]), ([1.0], []), ([], []), ([1.0], [3.99])])
def test_nothing_to_match_is_no_number(clip):
    other = ([1.0, 2.0], [1.0])
    for metric in (sync.sync_agreement, sync.sync_excess, sync.sync_p):
        found = metric(table(clip, other))
        assert np.isnan(found[0]) and not np.isnan(found[1])
    assert np.isnan(sync.sync_lag(table((clip[0], clip[1][:0]), other))[0])


@pytest.mark.statistical
def test_sound_in_time_scores_best():
    """The world's own clips, the sound slid: the best offset is 0 within the tolerance, and far ones are at chance."""
    look, onsets, means = DISFlow(), Onsets(), {}
    slide, _ = CHANGES["sound-shifted"]
    prompts = [one for one in loading.load("toy-object-contact").prompts if one.tags["family"] in ("collide", "cradle")]
    clips = [make_clip(Scene.of(prompt), 0)[0] for prompt in prompts[:20]]
    motion = [look(clip) for clip in clips]
    lags = {}
    for late in (-400, -300, -200, 0, 200, 300, 400):
        rows = [
            Row(Key("s", f"{k:02d}", 0), "0" * 64, {**seen, **onsets(slide(clip, None, late))})
            for k, (clip, seen) in enumerate(zip(clips, motion, strict=True))
        ]
        means[late] = np.nanmean(sync.sync_excess(columns(rows)[1]))
        lags[late] = np.nanmedian(np.abs(sync.sync_lag(columns(rows)[1]) - late))
    assert max(means, key=means.get) == 0 and means[0] > 0.5
    assert max(value for late, value in means.items() if late) < 0.1
    assert max(lags.values()) <= 125, "one video frame"
