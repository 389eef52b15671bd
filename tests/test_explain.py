"""What a metric saw: pictures over clips against the numbers that they explain, and which metrics can be explained."""

import numpy as np
import pytest
from command_line import run_avbench
from made_runs import evaluated
from test_flow import disc, drifting, noisy

from avbench.core import Clip, InputError, Key, NotMeasurable, Prompt, Row, Run, Sample, Subset, digest
from avbench.features.flow import DISFlow
from avbench.features.flow.pairs import pair, remaining, working
from avbench.features.protocols import protocol_of
from avbench.metrics import reference
from avbench.metrics.table import known_metrics
from avbench.report.page import clips, explain
from avbench.report.page.pictures import _NOT_COUNTED, PICTURES, flow_picture, heat_picture
from avbench.storage.runs.folder import RunFolder
from avbench.subsets import loading


def test_flow_is_coloured_by_direction():
    flow = np.zeros((2, 2, 2), np.float32)
    flow[0, 0] = (3, 0)
    flow[1, 1] = (-1.5, 0)
    picture = flow_picture(flow, 3)
    assert picture[0, 0].tolist() == [255, 0, 0] and np.abs(picture[1, 1].astype(int) - [0, 128, 128]).max() <= 1
    assert not picture[0, 1].any()


def test_the_heat_map_is_made_of_the_parts_of_the_warping_error():
    look = DISFlow()
    one, two = (working(frame, look.protocol) for frame in noisy(disc(30), 6).frames[:2])
    there, back = look.flow(one, two), look.flow(two, one)
    squares, visible = remaining(one, two, there, back, look.protocol)
    whole = pair(one, two, there, back, look.protocol)
    assert 0 < visible.mean() == pytest.approx(whole.visible) and whole.visible < 1
    assert squares[visible].mean(dtype=np.float64) == pytest.approx(whole.error, rel=1e-5)


def test_the_heat_map_is_black_to_one_grey_level_and_blue_where_nothing_is_counted():
    levels = np.array([[0.0, 1.0, 8.0, 64.0, 200.0, 200.0]])
    picture = heat_picture(3 * (levels / 255) ** 2, np.array([[True] * 5 + [False]])).astype(int)
    lights = picture[0].sum(axis=1)
    assert lights[0] == lights[1] < 10 < lights[2] < lights[3] == lights[4]
    assert tuple(picture[0, 5]) == _NOT_COUNTED


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_the_frames_and_the_shape_of_its_clip(name):
    clip = drifting(size=96, frames=4)
    wide = Clip(np.ascontiguousarray(clip.frames[:, :48]), clip.fps)
    made = PICTURES[name].draw(wide)
    assert (len(made.frames), made.fps, made.width / made.height) == (4, clip.fps, 2)
    assert (made.frames[-1] == made.frames[-2]).all() and made.frames.std() > 0
    with pytest.raises(NotMeasurable, match="two frames"):
        PICTURES[name].draw(Clip(wide.frames[:1], clip.fps))


def test_arrows_point_where_the_disc_goes():
    drawn = PICTURES["flow"].draw(disc(40)).frames
    white = (drawn.min(axis=-1) > 250).any(axis=(1, 2))
    assert white.any(), "arrows"
    red = drawn[0].reshape(-1, 3).astype(int)
    assert red[red.sum(axis=1) > 150].mean(axis=0).argmax() == 0, "red is to the right"


def test_what_explains_a_metric():
    asked = explain.explained(["warping_error", "lpips_consecutive", "fvd", "sync_excess"], flow=False)
    assert asked.pictures == ("warping", "flow")
    assert asked.curves == {"lpips_consecutive": ("lpips-alex", "per_pair")}
    assert [one.name for one in asked.distances] == ["fvd"]
    assert explain.explained((), flow=True).pictures == ("flow",)


@pytest.mark.parametrize(
    ("name", "scored", "message"),
    [
        ("warping_eror", None, "is unknown; did you mean 'warping_error'"),
        ("loudness", None, "'loudness' has no explanation; .*warping_error"),
        ("warping_error", ["fvd", "loudness"], "is not among the metrics that are scored; .*fvd"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_the_choices(name, scored, message):
    with pytest.raises(InputError, match=message):
        explain.explained([name], scored)


def test_the_command_refuses_before_anything_is_measured(tmp_path):
    done = run_avbench("score", tmp_path / "nowhere", "--explain", "loudness", code=None)
    assert done.exit_code == 2 and "explain (--explain): metric 'loudness' has no explanation" in done.output


def test_the_command_refuses_a_metric_that_it_will_not_score(tmp_path):
    done = run_avbench("score", tmp_path, "--metric", "motion_amount", "--explain", "sync_excess", code=2)
    assert "metric 'sync_excess' is not among the metrics that are scored; choices: motion_amount" in done.stderr


def test_every_explainer_names_metrics_and_pictures_that_there_are():
    known = known_metrics()
    for feature, ways in explain.EXPLAINERS.items():
        for way in ways:
            assert sum(map(bool, (way.picture, way.curve, way.marks))) == 1, feature
            assert all(feature in (known[name].feature, known[name].beside) for name in way.metrics), feature
            assert not way.picture or way.picture in PICTURES


def measured(place, subset, rows):
    """A run of one clip per row of `flow-dis` and `lpips-alex`."""
    folder = RunFolder(place)
    folder.start(Run(place.name, "made:up", {}, {subset.name: subset.digest}, (0,), {}, {}), [subset])
    for prompt, (histogram, curve) in zip(subset.prompts, rows, strict=True):
        key, sha256 = Key(subset.name, prompt.id, 0), digest([place.name, prompt.id])
        folder.add_sample(Sample(key, f"clips/{prompt.id}.mkv", sha256, 0.0))
        folder.add_row(protocol_of("flow-dis"), Row(key, sha256, {"motion_histogram": histogram}))
        folder.add_row(protocol_of("lpips-alex"), Row(key, sha256, {"mean": np.mean(curve), "per_pair": curve}))
    return folder


def test_curves_and_the_nearest_reference_clip_of_each_clip(tmp_path):
    subset = loading.load("toy-control").limited(2)
    real = reference.named("toy-control")
    there = real.columns(protocol_of("flow-dis"), subset)[0]["motion_histogram"]
    keys = real.keys(protocol_of("flow-dis"), subset)
    rows = [(there[at] + 1e-6, np.array([0.1, 0.25 * at])) for at in (3, 0)]
    folder = evaluated(measured(tmp_path / "run", subset, rows), "motion_frechet")
    asked = explain.explained(["motion_frechet", "lpips_consecutive"])
    ours = [Key(subset.name, prompt.id, 0) for prompt in subset.prompts]
    assert explain.curves(folder, asked) == {
        ours[0]: {"lpips_consecutive": [0.1, 0.75]},
        ours[1]: {"lpips_consecutive": [0.1, 0.0]},
    }
    near = explain.neighbours(folder, asked, tmp_path / "media")
    for key, at in zip(ours, (3, 0), strict=True):
        one = near[key]["motion_frechet"]
        assert (one.prompt, one.seed) == (keys[at].prompt, keys[at].seed) and one.distance < 1e-3
        known = real.clips.set_index(["prompt", "seed"]).loc[(one.prompt, one.seed)]
        assert one.sha256 == known["clip_sha256"] and clips.is_ready(tmp_path / "media", one.sha256)


def test_without_a_reference_a_sentence_stands_for_the_nearest_clip(tmp_path):
    subset = Subset("mine", 1, (Prompt("a", "x"),), None)
    folder = evaluated(measured(tmp_path / "run", subset, [(np.zeros(128), np.zeros(2))]), "motion_frechet")
    (found,) = explain.neighbours(folder, explain.explained(["motion_frechet"]), tmp_path).values()
    assert found == {"motion_frechet": "mine has no reference, so there is no nearest real clip"}
