"""The page in a browser, as a reader has it: from a file, with the network off."""

import base64
import dataclasses
import itertools
import json
import re
import shlex
import shutil
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from browsing import Opened, wait_until
from command_line import run_avbench
from made_media import make, moving, tone
from made_runs import evaluated, made_run, unsealed, values_of

import avbench
from avbench import cli
from avbench.comparison.differences import COLUMNS, TO_TARGET
from avbench.comparison.differences import differences as differences_of
from avbench.comparison.leaderboard import leaderboard
from avbench.comparison.score_table import over_motion
from avbench.core import Key
from avbench.features.current import current_rows
from avbench.metrics.evaluate import read_values
from avbench.metrics.table import Metric
from avbench.report.page import clips, explain, page, plots, svg
from avbench.storage.reading import read_json
from avbench.storage.runs.folder import RunFolder, read_subset
from avbench.storage.writing import line_of, write_json, write_sealed
from avbench.subsets import loading

RUNS = ("toyworld", "toyworld-flickering", "toyworld-noisy")
METRICS = ("motion_amount", "warping_error", "motion_frechet", "onset_rate", "event_rate")
ATTACK = "<img src=x onerror=\"document.title='broken'\"></script><script>document.title='broken'</script>{{ 7*7 }}"
SVG = "{http://www.w3.org/2000/svg}"
NOTHING_COMPARED = pd.DataFrame(columns=[*COLUMNS])


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Three runs of two prompts a subset; one caption and one folder's name are hostile."""
    place = tmp_path_factory.mktemp("page")
    asked = [word for name in METRICS for word in ("--metric", name)]
    models = ["toyworld:", "toyworld:flickering", "toyworld:noisy"]
    subsets = ["--subset", "toy-object-contact", "--subset", "toy-control"]
    done = run_avbench("run", *models, *subsets, "--limit", "3", *asked, "--workers", "0", "--out", place, code=None)
    assert done.exit_code == 0, done.output
    for run in RUNS:
        path = place / run / "subsets" / "toy-object-contact.json"
        plain = read_json(path)
        plain["prompts"][0]["video_caption"] = ATTACK
        for number, prompt in enumerate(plain["prompts"]):
            prompt["tags"]["place"] = "first" if number == 0 else "later"
        write_json(path, plain)
        made = unsealed(read_json(place / run / "run.json"))
        made["subsets"][path.stem] = read_subset(path).digest
        write_sealed(place / run / "run.json", made)
    (place / "toyworld-noisy").rename(place / "<img src=x onerror=alert(1)>")
    return place


def folders(out):
    return [RunFolder(out / name) for name in (*RUNS[:2], "<img src=x onerror=alert(1)>")]


def differences(out):
    """Paired comparisons in the form that `compare.differences` gives: decided, open, missing, and pooled."""
    runs = [folder.path.name for folder in folders(out)]
    common = {
        "against": runs[0],
        "kind": "clips",
        "paired": True,
        "p": 0.01,
        "p_holm": 0.02,
        "shown": True,
        "family": 4,
        "pairs": 3,
    }
    common |= {
        "prompts": 24,
        "primary": True,
        "margin": np.nan,
        "dropped": 1,
        "detectable": 0.004,
        "needed": np.nan,
        "verdict": None,
        "missing": None,
        "mark": None,
        "direction": "lower",
        "unit": "",
        "too_few": None,
    }
    values = {"difference": 0.02, "low": 0.01, "high": 0.03}
    rows = [
        {
            "subset": "toy-object-contact",
            "metric": "warping_error",
            "run": runs[1],
            "better": runs[0],
            **values,
            **common,
        },
        {"subset": "toy-object-contact", "metric": "onset_rate", "run": runs[2], "better": None, **values, **common},
        {"subset": "macro", "metric": "warping_error", "run": runs[1], "better": runs[0], **values, **common},
    ]
    nothing = dict.fromkeys(("difference", "low", "high", "p", "p_holm", "detectable"), np.nan)
    nothing |= {"shown": False, "pairs": np.nan}
    rows.append({**rows[1], **nothing, "subset": "toy-control", "missing": "the clips have <b>no</b> sound"})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module", autouse=True)
def few_clips_suffice():
    """Distances have figures only of enough clips, and these runs have three."""
    with mock.patch.object(Metric, "too_few", lambda *_: None):
        yield


def written(out, name, asked=(), flow=False, media="inside"):
    runs, frame = folders(out), leaderboard(folders(out))
    shown = explain.explained(asked, set(frame["metric"]), flow=flow)
    list(clips.prepare(runs, out / "media", pictures=shown.pictures)[1])
    html = page.render(runs, frame, over_motion(runs), out / "media", differences(out), media, shown)
    (out / name).write_text(html)
    return out / name


@pytest.fixture(scope="module")
def report(out):
    return written(out, "report.html", flow=True)


@pytest.fixture(scope="module")
def inside(report, browser):
    opened = Opened(browser, report)
    yield opened
    opened.context.close()


@pytest.mark.browser
def test_every_figure_is_in_the_page_without_a_complaint_or_a_request(inside):
    tab = inside.page
    plots = tab.locator(".plot svg")
    assert plots.count() == 2 + 2, "of two comparisons, and of a distance on either subset"
    dots = tab.locator(".plot[data-kind=paired]").first.locator("[data-prompt]")
    assert dots.count() == 3, "a dot a prompt"
    assert tab.locator(".plot[data-kind=paired]").first.locator("polygon").count() == 1, "the mean"
    assert not inside.complaints
    assert all(url.startswith(("file:", "blob:", "data:")) for url in inside.asked)


@pytest.mark.browser
def test_the_first_screen_has_verdict_forest_plot_and_one_pair_of_clips(browser, report):
    opened = Opened(browser, report)
    tab = opened.page

    def bottom(place):
        return tab.locator(place).first.evaluate("one => one.getBoundingClientRect().bottom")

    assert "toyworld-flickering is worse than toyworld in 1 of 1 comparison" in tab.locator(".answer").inner_text()
    assert bottom(".answer") < bottom(".pair:visible svg:visible") < 900 and bottom("#show video") < 900
    assert (
        "difference that 24 prompts can show in 1 comparison, corrected for 4"
        in tab.locator("#answer .pair:visible").inner_text()
    )
    arms = tab.locator("#show .arm").all_inner_texts()
    assert ["toyworld" in arms[0], "flickering" in arms[1], len(arms)] == [True, True, 2], "the pair, and not all runs"
    assert "warping error on toy-object-contact: toyworld is shown to be better" in tab.locator("#found").inner_text()
    gains = tab.evaluate("pair.items.map(one => one.gain)")
    assert gains == sorted(gains) and len(gains) == 3, "the prompt where the winner is furthest ahead comes first"
    first = tab.locator("#show .name").inner_text()
    assert tab.locator("#show .before").is_disabled()
    tab.locator("#show .after").click()
    assert tab.locator("#show .name").inner_text() != first and "Prompt 2 of 3" in tab.locator("#rank").inner_text()
    tab.locator("#show input[type=radio][value='1']").check()
    assert tab.evaluate("[...document.querySelectorAll('#show video:not(.over)')].map(one => one.muted)") == [
        True,
        False,
    ]
    tab.select_option("#pair", label="toyworld and <img src=x onerror=alert(1)>")
    row = tab.locator("#answer .pair:visible .choice:visible", has_text="onset rate")
    row.focus()
    tab.keyboard.press("Enter")
    assert row.get_attribute("aria-pressed") == "true"
    assert "onset rate on toy-object-contact" in tab.locator("#found").inner_text()
    for kind, why in (("distance", "compares sets of clips"), ("clips", "No prompt has a value of onset rate")):
        tab.evaluate("kind => chooseRow({ ...pair.row, kind, subset: 'without a common prompt' })", kind)
        assert why in tab.locator("#found").inner_text()
    assert not opened.complaints
    opened.context.close()


@pytest.mark.browser
def test_a_plot_is_saved_whole_as_svg_and_png(inside, tmp_path):
    tab = inside.page
    figure = tab.locator(".pair:visible").first
    for form, head in (("svg", b"<svg"), ("png", b"\x89PNG")):
        with tab.expect_download() as waiting:
            figure.get_by_role("button", name=f"as {form.upper()}").click()
        waiting.value.save_as(tmp_path / f"x.{form}")
        assert waiting.value.suggested_filename.startswith("Forest-plot-of-")
        assert (tmp_path / f"x.{form}").read_bytes().startswith(head)
    drawn = ET.parse(tmp_path / "x.svg").getroot()
    assert all("fill" in one.get("style") for one in drawn.iter(f"{SVG}text")), "it needs no style sheet of the page"


@pytest.mark.browser
def test_sections_have_different_names_and_printing_unfolds_the_tables(inside):
    tab = inside.page
    names = tab.locator("nav a").all_inner_texts()
    assert len(names) == len({*names})
    folded = "document.querySelectorAll('.tables:not([open])').length"
    before = tab.evaluate(folded)
    assert before >= 2 and tab.locator(".tables .more:visible").count() == 0
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate(folded) == 0
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate(folded) == before
    table = tab.locator("#subset-0 .tables").first
    table.locator("summary").click()
    table.locator(".switch").check()
    assert table.locator(".more:visible").count() > 0
    table.locator(".switch").uncheck()
    table.locator("summary").click()


@pytest.mark.browser
def test_a_link_leads_to_its_section_however_much_grows_on_the_way(inside, browser, report):
    """Strips, player and gallery are built near the screen; the section that was asked for stays in its place."""
    names = inside.page.locator("nav a").evaluate_all("all => all.map(one => one.hash)")
    assert {"#clips", "#gallery", "#origins"} < {*names}
    top = "document.querySelector({!r}).getBoundingClientRect().top"
    lowest = "scrollY + innerHeight >= document.documentElement.scrollHeight - 1"
    for name in names:  # a page of its own each, in which nothing is built yet
        opened = Opened(browser, report)
        tab = opened.page
        tab.locator(f"nav a[href='{name}']").click()
        for _ in range(4):
            tab.wait_for_timeout(250)
            at = tab.evaluate(top.format(name))
            assert -2 <= at <= 80 or (0 < at < 900 and tab.evaluate(lowest)), (name, at)
        opened.context.close()


@pytest.mark.browser
def test_everything_that_can_be_pressed_has_a_name_and_text_has_contrast(inside):
    tab = inside.page
    nameless = tab.evaluate(
        "[...document.querySelectorAll('button, a, input, select, [role=button], svg')].filter(one => !(one.ariaLabel "
        "|| one.textContent.trim() || one.labels?.length)).map(one => one.outerHTML.slice(0, 80))"
    )
    assert nameless == []

    def contrast(one, other):
        lights = []
        for colour in (one, other):
            parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
            linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
            lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
        return max(lights) / min(lights)

    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        look = {name: tab.evaluate(f"ink('--{name}')") for name in ("paper", "raised", "tint", "ink", "soft", "good")}
        for ground in ("paper", "raised", "tint"):
            assert min(contrast(look[name], look[ground]) for name in ("ink", "soft", "good")) >= 4.5, (scheme, ground)
            assert min(contrast(one, look[ground]) for one in plots.COLOURS) >= 3, (scheme, ground)
    tab.emulate_media(color_scheme="light")


@pytest.mark.browser
def test_the_best_and_worst_clips_of_a_subset_open_in_the_player(inside):
    tab = inside.page
    strip = tab.locator(".strip").first
    strip.scroll_into_view_if_needed()
    strip.locator(".thumb").first.wait_for()
    strip.locator("select").select_option(label="warping error")
    texts = strip.locator(".thumb").all_inner_texts()
    assert len(texts) == 3 * 3 and [text.partition(":")[0] for text in texts[:3]] in (
        ["best", "median", "worst"],
        ["least", "median", "most"],
    )
    strip.locator(".thumb").nth(2).click()
    assert tab.locator("#player .name").inner_text() in strip.locator(".thumb").nth(2).get_attribute("aria-label")


@pytest.mark.browser
def test_the_best_clip_of_a_run_is_nearest_to_the_real_clips_of_its_prompt(browser, report):
    opened = Opened(browser, report)
    tab = opened.page
    strip = tab.locator(".strip").first
    strip.scroll_into_view_if_needed()
    strip.locator("select").select_option(label="motion amount")
    found = [re.findall(r"-?\d[\d.e-]*", text) for text in strip.locator(".thumb").all_inner_texts()]
    assert len(found) == 9
    for run in range(3):
        apart = [abs(float(value) - float(real)) for value, real in found[3 * run : 3 * run + 3]]
        assert apart == sorted(apart)
    assert len({real for _, real in found}) == 3, "each prompt has real clips of its own"
    opened.context.close()


@pytest.mark.browser
def test_the_best_clip_of_a_run_is_nearest_to_its_own_reference(browser, report):
    opened = Opened(browser, report)
    tab = opened.page
    tab.evaluate(
        """() => {
          data.targets = {};
          data.scores.filter((one) => one.metric === "motion_amount").forEach((one) => {
            one.reference = one.model === runNames[0] ? 1000 : -1000;  // the highest is nearest; the lowest
          });
        }"""
    )
    strip = tab.locator(".strip").first
    strip.scroll_into_view_if_needed()
    strip.locator("select").select_option(label="motion amount")
    heads, values = zip(*(text.split(": ") for text in strip.locator(".thumb").all_inner_texts()), strict=True)
    numbers = [float(value.partition(",")[0]) for value in values]
    assert heads == ("best", "median", "worst") * 3
    assert numbers[:3] == sorted(numbers[:3], reverse=True) and numbers[3:6] == sorted(numbers[3:6])
    assert numbers[0] > numbers[2] and numbers[3] < numbers[5]
    opened.context.close()


@pytest.mark.browser
def test_a_thumbnail_opens_the_clip_of_its_own_seed(browser, report):
    opened = Opened(browser, report)
    tab = opened.page
    tab.evaluate(
        """() => {  // a second seed of the first subset, whose values are larger
          const { name, prompts, seeds } = data.subsets[0];
          seeds.push(1);
          for (const { id } of prompts) data.clips[[name, id, 1].join("/")] = data.clips[[name, id, 0].join("/")];
          for (const runs of Object.values(data.values[name])) for (const k of runs.keys())
            runs[k] = runs[k].flatMap((value) => [value, value === null ? null : value + 1]);
          const known = data.targets[name];
          for (const metric of Object.keys(known)) known[metric] = known[metric].flatMap((real) => [real, real]);
        }"""
    )
    strip = tab.locator(".strip").first
    strip.scroll_into_view_if_needed()
    strip.locator("select").select_option(label="warping error")
    thumb = strip.locator(".thumb").nth(2)
    thumb.click()
    name = tab.locator("#player .name").inner_text()
    assert name.endswith(" · 1") and name in thumb.get_attribute("aria-label")
    opened.context.close()


@pytest.mark.browser
def test_a_dot_opens_its_own_seed_and_lists_the_difference_that_it_shows(browser, report):
    opened = Opened(browser, report)
    tab = opened.page
    tab.evaluate("data.subsets[0].seeds.push(1)")
    press = """([chosen, seed]) => {
      const dot = document.querySelector(chosen);
      if (seed !== null) dot.dataset.seed = seed;
      for (const kind of ["pointerover", "click"]) dot.dispatchEvent(new MouseEvent(kind, { bubbles: true }));
      return [dot.textContent, document.querySelector("#player .name").textContent];
    }"""
    tab.select_option("#against", "1")
    chosen = "[data-kind=paired] [data-run^='<img'] circle"
    subset, prompt = tab.evaluate(
        """(chosen) => {
          const dot = document.querySelector(chosen);
          return [dot.closest(".plot").dataset.subset, dot.dataset.prompt];
        }""",
        chosen,
    )
    assert subset == tab.evaluate("data.subsets[0].name")
    assert tab.evaluate(press, [chosen, "1"]) == [
        f"{prompt} · 1, <img src=x onerror=alert(1)> − toyworld",
        f"{prompt} · 1",
    ]
    assert tab.evaluate("[$('run').value, $('against').value]") == ["2", "0"]
    assert not opened.complaints
    opened.context.close()


@pytest.mark.browser
def test_without_scripts_all_comparisons_are_there_and_nothing_that_cannot_work(browser, report):
    context = browser.new_context(java_script_enabled=False, offline=True)
    tab = context.new_page()
    tab.goto(report.as_uri())
    assert tab.locator("#answer .pair").count() == 2
    assert all(one.is_visible() for one in tab.locator("#answer .pair").all())
    assert "JavaScript is off" in tab.locator("#answer").inner_text()
    for gone in ("#show", "#clips", "#gallery", ".strip", "#pair", ".saves", ".switch", "a[href='#clips']"):
        assert not any(one.is_visible() for one in tab.locator(gone).all()), gone
    context.close()


@pytest.mark.browser
def test_a_pair_with_nothing_to_show_keeps_nothing_of_the_pair_before(browser, report):
    opened = Opened(browser, report)
    tab = opened.page
    assert tab.locator("#found").inner_text() and tab.locator(".choice[aria-pressed=true]").count()
    tab.evaluate("data.differences.forEach((one) => { one.effect = null; })")
    tab.select_option("#pair", label="toyworld and <img src=x onerror=alert(1)>")
    assert tab.locator("#found").text_content() == tab.locator("#rank").text_content() == ""
    assert tab.locator(".choice[aria-pressed=true]").count() == 0
    arms = tab.locator("#show .arm").all_inner_texts()
    assert ["toyworld" in arms[0], "<img" in arms[1], len(arms)] == [True, True, 2]
    opened.context.close()


@pytest.mark.browser
def test_names_and_captions_stay_text(inside):
    tab = inside.page
    assert "broken" not in tab.title()
    tab.evaluate("chooseSubset(0); open(0)")
    assert tab.locator("#player .video-caption").inner_text() == ATTACK
    assert tab.locator("img").count() == 0
    assert tab.locator("h1:not(.unseen)").inner_text().count("<img src=x onerror=alert(1)>") == 1
    texts = tab.locator(".plot[data-kind=distances]").first.locator("text").all_text_contents()
    assert "<img src=x onerror=alert(1)>" in " ".join(texts)
    assert "no</b> sound" in " ".join(tab.locator(".remark").all_text_contents())


@pytest.mark.browser
def test_a_script_that_got_in_would_not_run(out, browser, report):
    path = out / "tampered.html"
    html = report.read_text()
    attack = "<script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"
    path.write_text(html.replace("<main>", f"<main>{attack}<img src='http://example.com/x.png'>"))
    opened = Opened(browser, path)
    opened.page.wait_for_timeout(300)
    assert "broken" not in opened.page.title()
    assert any("Content Security Policy" in complaint for complaint in opened.complaints)
    opened.context.close()


# What each video last showed, in frames, beside every frame that the browser paints.
WATCH = """
() => {
  window.seen = [];
  const videos = [...document.querySelectorAll('#player video')], shown = videos.map(() => null);
  videos.forEach((video, k) => {
    const look = (_, about) => { shown[k] = about.mediaTime; video.requestVideoFrameCallback(look); };
    video.requestVideoFrameCallback(look);
  });
  const note = () => {
    if (shown.every((one) => one !== null)) window.seen.push([...shown]);
    requestAnimationFrame(note);
  };
  requestAnimationFrame(note);
}
"""


ALL_SHOWN = "() => window.seen.length > 50 && new Set(window.seen.map(row => Math.round(8 * row[0]))).size === 16"


def apart(seen, fps=8, frames=16):
    """Frames between the first and the last of the videos at every moment, around the loop's end too."""
    at = np.round(np.array(seen) * fps).astype(int)
    return np.array([min(np.ptp((row + shift) % frames) for shift in range(frames)) for row in at])


def scroll_to_the_clips(tab):
    """Again and again, as clips above them come late and move them away."""
    scroll = "document.getElementById('clips').scrollIntoView({ behavior: 'instant' })"
    wait_until(tab, f"({scroll}, inView.has('reach'))")


@pytest.mark.browser
def test_clips_play_in_lockstep(inside):
    tab = inside.page
    tab.evaluate("chooseSubset(0); open(1)")
    scroll_to_the_clips(tab)
    tab.evaluate(WATCH)
    tab.keyboard.press("Space")
    wait_until(tab, ALL_SHOWN)  # on a busy machine frames are skipped, and shown in a later round
    tab.keyboard.press("Space")
    assert apart(tab.evaluate("window.seen")).max() <= 1


@pytest.mark.browser
def test_scrubbing_shows_the_same_frame_everywhere(inside):
    tab = inside.page
    scroll_to_the_clips(tab)
    tab.evaluate("open(2)")
    tab.evaluate(WATCH)
    scrubber = tab.locator("#player .scrubber")
    box = scrubber.bounding_box()
    middle = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + 8, middle)
    tab.mouse.down()
    for step in range(1, 33):
        tab.mouse.move(box["x"] + 8 + (box["width"] - 16) * step / 32, middle)
        tab.wait_for_timeout(40)
    tab.mouse.up()
    tab.evaluate("bench.seek(bench.time)")
    assert apart(tab.evaluate("window.seen")).max() <= 1
    for key, frame in (("ArrowLeft", 14), ("ArrowLeft", 13), ("ArrowRight", 14)):
        tab.keyboard.press(key)
        tab.evaluate("bench.seek(bench.time)")
        assert scrubber.input_value() == str(frame)
        wait_until(tab, f"window.seen.at(-1).every(one => Math.round(one * 8) === {frame})")


@pytest.mark.browser
def test_sound_of_one_arm_at_a_time(inside):
    tab = inside.page
    muted = "[...document.querySelectorAll('#player video:not(.over)')].map(one => one.muted)"
    tab.evaluate(
        "open(0); $('clips').scrollIntoView({behavior: 'instant'})"
    )  # keys are for the clips only where these are in view
    wait_until(tab, "inView.has('reach')")
    assert tab.evaluate(muted) == [True, True, True]
    tab.keyboard.press("2")
    assert tab.evaluate(muted) == [True, False, True]
    tab.evaluate("open(1)")
    assert tab.evaluate(muted) == [True, False, True], "it stays chosen"
    tab.keyboard.press("0")
    assert tab.evaluate(muted) == [True, True, True]


@pytest.mark.browser
def test_prompts_are_sorted_by_a_metrics_difference(inside):
    tab = inside.page
    tab.select_option("#subset", label="toy-object-contact")
    tab.select_option("#metric", label="warping_error")
    values = [float(text) for text in tab.locator("#list span:last-child").all_inner_texts()]
    assert values == sorted(values) and len(values) == 3 and values[0] > 0
    for jump, place in (("lowest", 0), ("highest", 2), ("median", 1)):
        tab.get_by_role("button", name=jump, exact=True).click()
        assert tab.locator("#list button").nth(place).get_attribute("aria-current") == "true"
    first = tab.locator("#player .name").inner_text()
    tab.locator("#player .name").click()
    tab.keyboard.press("j")
    assert tab.locator("#list button").nth(2).get_attribute("aria-current") == "true"
    tab.keyboard.press("k")
    assert tab.locator("#player .name").inner_text() == first


@pytest.mark.browser
def test_marks_flow_and_hashes_of_a_clip(inside, out):
    tab = inside.page
    run = folders(out)[0]
    key, sample = next((key, one) for key, one in run.samples().items() if key.subset == "toy-object-contact")
    clip = tab.evaluate("key => data.clips[key][0]", "/".join(map(str, key)))
    assert clip["sha256"] == sample.sha256 and clip["contacts"] and clip["onsets"]
    assert "contact (truth)" in tab.locator("#player .marks").inner_text()
    tab.evaluate("open(0)")
    assert tab.locator("#player video.over:visible").count() == 0
    tab.keyboard.press("f")
    assert tab.locator("#player video.over:visible").count() == 3
    tab.keyboard.press("f")


@pytest.mark.browser
def test_a_number_opens_its_origin(inside, out):
    tab = inside.page
    tab.evaluate("document.querySelectorAll('.tables').forEach(one => one.open = true)")
    row = tab.locator("#subset-0 tr", has=tab.locator("th", has_text=re.compile("^toyworld$")))
    row.locator(".number[data-score]").nth(1).click()
    origin = tab.locator("#origin").inner_text()
    score = folders(out)[0].scores()[1]
    assert score.protocol in origin and f"{score.n} clips" in origin and str(score.value) in origin
    kept = folders(out)[0].subset_path("toy-object-contact")
    assert f"avbench sample toyworld: --subset {kept.name}" in origin and '"name": "flow-dis"' in origin
    tab.keyboard.press("Escape")
    assert tab.locator("#together").count() == 0, "no means over subsets beside distances, which they lack"
    tab.locator(".number[data-difference]").first.click()
    origin = tab.locator("#origin").inner_text()
    assert "0.02, of a family of 4" in origin and "avbench compare" in origin and "3 pairs of 24 prompts" in origin
    tab.keyboard.press("Escape")
    tab.locator("#subset-1 .number[data-difference]").first.click()
    origin = tab.locator("#origin-facts").inner_text()
    assert "the clips have <b>no</b> sound" in origin and "null" not in origin and "\nclips\n" not in origin
    tab.keyboard.press("Escape")


@pytest.mark.slow
def test_the_commands_of_an_origin_ask_for_the_same(tmp_path, monkeypatch):
    asked = {"fps": 8, "note": "5", "solver": "euler", "tiling": True, "text": "False"}
    folder = evaluated(made_run(tmp_path / "run"))
    write_sealed(folder.path / "run.json", {**unsealed(read_json(folder.path / "run.json")), "asked": asked})
    scores, protocols = folder.scores(), folder.evaluation().protocols
    folder.write_scores(scores, protocols, values_of(folder), {"reference": "my refs/real", "against": "runs/real"})
    commands = page._commands(folder, folder.run())
    monkeypatch.chdir(folder.path / "subsets")  # the page leaves out the folders of files
    options = {name: [*itertools.pairwise(shlex.split(words))] for name, words in commands.items()}
    assert cli.steps.parsed_settings(after for before, after in options["sample"] if before == "-M") == asked
    assert [loading.load(after) for before, after in options["sample"] if before == "--subset"] == folder.subsets()
    assert ("--reference", "my refs/real") in options["evaluate"] and ("--against", "runs/real") in options["measure"]


@pytest.mark.browser
def test_blind_votes_are_exported_and_summed_up(inside, out, tmp_path):
    tab = inside.page
    scroll_to_the_clips(tab)
    tab.locator("#player .name").click()
    tab.keyboard.press("v")
    pairs = tab.evaluate("ballot.pairs.length")
    assert pairs == 3 * 2 * 3
    shown = tab.locator("#clips").inner_text()
    assert not any(name in shown for name in (*RUNS, "onerror=alert(1)"))
    wait_until(tab, "!bench.root.classList.contains('loading')")
    assert tab.locator("#player .arm > label").all_inner_texts() == ["left\nsound", "right\nsound"]
    assert "To hear a clip, click its “sound”." in tab.locator("#changed").inner_text()
    tab.locator("#player .arm > label").nth(1).click()
    assert tab.evaluate("bench.arms.map(one => one.video.muted)") == [True, False]
    for index in range(pairs):
        assert f"pair {index + 1} of {pairs}" in tab.locator("#progress").inner_text()
        wait_until(tab, "!bench.root.classList.contains('loading')")
        left, right = tab.evaluate("(({left, right}) => [left, right])(ballot.pairs[ballot.votes.length])")
        choice = "ArrowDown" if index % 3 == 0 else "ArrowLeft" if (left < right) == (index % 5 > 0) else "ArrowRight"
        tab.keyboard.press(choice)
    tab.keyboard.press("u")
    assert f"pair {pairs} of {pairs}" in tab.locator("#progress").inner_text()
    wait_until(tab, "!bench.root.classList.contains('loading')")
    tab.keyboard.press("ArrowDown")
    with tab.expect_download() as waiting:
        tab.keyboard.press("e")
    waiting.value.save_as(tmp_path / "votes.json")
    plain = json.loads((tmp_path / "votes.json").read_text())
    assert len(plain["votes"]) == pairs and len({vote["left"] for vote in plain["votes"]}) == 3
    tab.locator("#reveal").click()
    assert "toyworld-flickering:" in tab.locator("#tally").inner_text()
    assert "ended after" in tab.locator("#progress").inner_text() and tab.locator("#undo").is_disabled()
    tab.keyboard.press("Escape")
    assert tab.locator("#voting:visible").count() == 0
    done = run_avbench("votes", tmp_path / "votes.json", code=None)
    assert done.exit_code == 0 and "strengths" in done.output, done.output
    assert not inside.complaints


@pytest.mark.browser
def test_sound_that_outlasts_the_picture_is_played_to_its_end_and_marked(browser, tmp_path):
    """Of two clips of 1 s; in a blind vote both end with the picture."""
    for name, seconds in (("long", 3), ("short", 0.5)):
        (tmp_path / name).mkdir()
        sound = ("pcm_s16le", tone(round(16000 * seconds)), 16000, Fraction(0))
        make(tmp_path / name / "c.mkv", moving(8), 8, sound=sound)
    how = {"metrics": "motion_amount", "workers": 0, "out": tmp_path / "out"}
    found = avbench.score([tmp_path / "long", tmp_path / "short"], **how)
    opened = Opened(browser, found.save_report(tmp_path / "page"))
    tab = opened.page
    tab.evaluate("(chooseSubset(0), open(0))")
    assert tab.evaluate("bench.length") == 3
    assert tab.locator("#player .time").inner_text() == "frame 1 of 8 · 0.00 s"
    tab.evaluate("bench.scrub(20)")
    assert tab.locator("#player .time").inner_text() == "after the last frame · 2.56 s"
    words = """bench.arms.map((arm) => {
      const told = [], pen = arm.canvas.getContext("2d"), draw = pen.fillText;
      pen.fillText = (text, x) => told.push(text, ((x / arm.canvas.width) * bench.length).toFixed(1));
      bench.waves();
      pen.fillText = draw;
      return told;
    })"""
    assert tab.evaluate(words) == [["picture ends", "1.0"], ["sound ends", "0.5"]]
    cut = """bench.arms.map((arm) => {
      const pen = arm.canvas.getContext("2d"), draw = pen.fillText;
      let cut = null;
      pen.fillText = (text, x) => { cut = x < 0 || x + pen.measureText(text).width > arm.canvas.width; };
      arm.card = { ...arm.card, seconds: 2.9, sound_seconds: 2.6 };
      bench.waves();
      pen.fillText = draw;
      return cut;
    })"""
    assert tab.evaluate(cut) == [False, False]
    tab.evaluate("startVoting()")
    wait_until(tab, "!bench.root.classList.contains('loading')")
    assert tab.evaluate("bench.length") == 1
    assert not opened.complaints
    opened.context.close()


@pytest.mark.browser
def test_media_beside_the_page_and_a_dark_phone(out, browser, report):
    whole, beside = report.stat().st_size, written(out, "beside.html", media="beside")
    of_clips = sum(path.stat().st_size for path in (out / "media").glob("*.mp4"))
    assert of_clips < whole - beside.stat().st_size < 1.5 * of_clips
    assert beside.stat().st_size < 3e6, "what a page weighs without its clips"
    opened = Opened(browser, beside, color_scheme="dark")
    tab = opened.page
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.evaluate("open(0)")
    tab.evaluate("bench.seek(1)")
    assert tab.locator("#player video").first.evaluate("one => [one.currentTime, one.videoWidth]") == [1, 128]
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", paper))) < 40
    assert not opened.complaints
    opened.context.close()


@pytest.mark.slow
def test_votes_come_back_to_the_page_by_the_command(out, tmp_path):
    pair = {"subset": "toy-control", "seed": 0, "left": RUNS[0], "right": RUNS[1], "conformed": {}}
    votes = [{**pair, "prompt": f"p{k}", "vote": choice} for k, choice in enumerate(["left"] * 6 + ["right"] * 2)]
    plain = {"avbench_votes": 2, "seed": 0, "runs": RUNS[:2], "subsets": {}, "votes": votes}
    (tmp_path / "votes.json").write_text(json.dumps(plain))
    runs = [str(out / name) for name in RUNS[:2]]
    command = ["report", *runs, "--out", str(tmp_path), "--workers", "0", "--media", "beside"]
    done = run_avbench(*command, "--votes", tmp_path / "votes.json", code=None)
    assert done.exit_code == 0, done.output
    section = (tmp_path / "report.html").read_text().partition('<section id="votes">')[2].partition("</section>")[0]
    assert "+0.55" in section and "<td>6</td>" in section  # half of log 3
    refused = run_avbench(*command[:-1], "insid", code=None)
    assert refused.exit_code == 2 and "inside" in refused.output


@pytest.mark.browser
def test_a_clip_that_is_missing_is_a_sentence(out, browser, tmp_path):
    runs = folders(out)
    copy = tmp_path / "short"
    shutil.copytree(runs[1].path, copy)
    lines = (copy / "samples.jsonl").read_bytes().splitlines(keepends=True)
    failed = json.loads(lines[0])
    lost = {"path": None, "sha256": None, "failure": "out of <memory>"}
    for number, one in enumerate(map(json.loads, lines)):
        if one["key"][0] == failed["key"][0]:
            lines[number] = line_of({**unsealed(one), **lost})
    (copy / "samples.jsonl").write_bytes(b"".join(lines))
    scored = read_json(copy / "scores.json")  # as an evaluation would say after the clip was lost
    write_sealed(copy / "scores.json", {**unsealed(scored), "clips": RunFolder(copy)._clips_digest()})
    both = [runs[0], RunFolder(copy)]
    list(clips.prepare(both, tmp_path / "media")[1])
    path = tmp_path / "report.html"
    with mock.patch.object(page, "_contacts", lambda *_: None):
        path.write_text(page.render(both, leaderboard(both), over_motion(both), tmp_path / "media", NOTHING_COMPARED))
    opened = Opened(browser, path)
    tab = opened.page
    assert "contact" not in tab.locator("#player .marks").text_content(), "nobody knows of contacts here"
    tab.evaluate("key => { chooseSubset(data.subsets.findIndex(one => one.name === key[0])); }", failed["key"])
    tab.evaluate("key => open(items().findIndex(one => one.prompt.id === key[1]))", failed["key"])
    assert "out of <memory>" in tab.locator("#player .arms").inner_text()
    assert "out of <memory>" in tab.locator("#coverage").text_content()
    tab.evaluate("document.getElementById('gallery').scrollIntoView({ behavior: 'instant' })")
    tab.locator(".tile.lost").first.wait_for()
    assert "3 without a clip" in tab.locator("#gallery-count").inner_text()
    tab.select_option("#gallery-state", "failed")
    assert tab.locator(".tile").count() == 3 and "no clip: out of <memory>" in tab.locator(".tile").first.inner_text()
    whole = f"short has none of its 3 clips of {failed['key'][0]}: out of <memory>"
    assert tab.locator("#answer .bad").inner_text() == whole
    opened.context.close()


REACHABLE = """() => {
  const every = [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')];
  return every.filter(one => one.checkVisibility({ visibilityProperty: true }) && !one.disabled && !one.dataset.seen
    && (one.type !== 'radio' || one.checked)).map(one => one.outerHTML.slice(0, 120));
}"""


@pytest.mark.browser
def test_the_keyboard_alone_reaches_everything(browser, report):
    opened = Opened(browser, report)
    tab = opened.page
    for place in (".strip", "#gallery"):  # what is made when it is seen
        tab.evaluate(f"document.querySelector('{place}').scrollIntoView({{ behavior: 'instant' }})")
        tab.wait_for_timeout(300)
    tab.evaluate("scrollTo(0, 0)")
    tab.evaluate(
        "document.querySelector('a.skip').focus()"
    )  # the keyboard would go on from where the page was scrolled to
    tab.keyboard.press("Shift+Tab")
    assert len(tab.evaluate(REACHABLE)) > 60
    for _ in range(400):
        tab.keyboard.press("Tab")
        if tab.evaluate(
            "(one => one === document.body || one.dataset.seen || !(one.dataset.seen = 1))(document.activeElement)"
        ):
            break
    assert tab.evaluate(REACHABLE) == []
    opened.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(browser, scheme, report):
    axe = pytest.importorskip("axe_playwright_python").__path__[0]
    opened = Opened(browser, report, color_scheme=scheme, bypass_csp=True)
    tab = opened.page
    tab.add_script_tag(path=f"{axe}/axe.min.js")
    tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    faults = "axe.run().then(found => found.violations.map(one => [one.id, one.impact, one.nodes[0].html]))"
    for width in (1400, 1024, 390):
        tab.set_viewport_size({"width": width, "height": 900})
        for place in (".strip", "#clips", "#gallery"):
            tab.evaluate(f"document.querySelector('{place}').scrollIntoView({{ behavior: 'instant' }})")
            tab.wait_for_timeout(200)
        tab.select_option("#gallery-metric", "warping_error")
        assert tab.evaluate(faults) == [], width
    for state in ("startVoting()", "(stopVoting(), document.querySelector('.number').click())"):
        tab.evaluate(state)
        tab.wait_for_timeout(300)
        assert tab.evaluate(faults) == [], state
    opened.context.close()


@pytest.mark.browser
def test_what_a_metric_saw_lies_over_the_clips_and_under_them(out, browser):
    opened = Opened(browser, written(out, "explained.html", asked=["warping_error", "motion_amount", "motion_frechet"]))
    tab = opened.page
    scroll_to_the_clips(tab)
    tab.evaluate("open(0)")
    tab.locator("#player .picture").select_option(label="warping error")
    wait_until(
        tab, "[...document.querySelectorAll('#player video.over')].filter(one => one.readyState > 1).length === 3"
    )
    assert "Blue is left out" in tab.locator("#player .over-words").inner_text()
    assert tab.locator("#player .over-time figcaption").all_inner_texts() == [
        "motion amount, frame by frame:  1 toyworld  2 toyworld-flickering  3 <img src=x onerror=alert(1)>"
    ]
    curve = "document.querySelector('#player .curve')"
    assert tab.evaluate(f"(bench.waves(), new Set({curve}.getContext('2d').getImageData(0, 0, 400, 40).data).size > 3)")
    ends = """(form) => {
      const canvas = document.querySelector("#player .curve"), pen = canvas.getContext("2d"), draw = pen.lineTo;
      const drawn = [];
      pen.lineTo = (x, y) => { drawn.push(x / canvas.width); draw.call(pen, x, y); };
      bench.arms.forEach((arm) => { arm.clip.form = form; });
      bench.waves();
      delete pen.lineTo;
      return Math.max(...drawn);
    }"""
    assert tab.evaluate(ends, None) == pytest.approx(15 / 16)  # of 16 frames in 2 s, the last step
    form = {"width": 64, "height": 48, "frames": 16, "fps": 16, "seconds": 1, "sample_rate": 8000, "channels": 1}
    assert tab.evaluate(ends, form) == pytest.approx(15 / 32), "its numbers are of the first second"
    said = (
        "measured as 64×48, 16 frames/s, the first 1 s, 8000 Hz, 1 channel; pictures over it are of the clip as it is"
    )
    assert tab.evaluate("(form) => measuredAs(form, bench.arms[0].card)", form) == said
    assert tab.evaluate("(form) => measuredAs({ ...form, seconds: 3 }, bench.arms[0].card)", form) == ""
    tab.evaluate(ends, None)
    legend = """() => {
      bench.arms.forEach((arm, k) => { arm.name = ["א", "ב", "ג"][k]; });
      const made = bench.curve("motion_amount").firstChild, found = [];
      document.querySelector("#player .curves").append(made);
      const nodes = document.createTreeWalker(made, NodeFilter.SHOW_TEXT);
      for (let node; (node = nodes.nextNode());) [...node.data].forEach((letter, k) => {
        const range = document.createRange();
        range.setStart(node, k); range.setEnd(node, k + 1);
        if (/[1-3א-ג]/.test(letter)) found.push([range.getBoundingClientRect().x, letter]);
      });
      made.remove();
      return found.sort((a, b) => a[0] - b[0]).map(([, letter]) => letter).join("");
    }"""
    assert tab.evaluate(legend) == "1א2ב3ג", "a number stands before its own name"
    run = folders(out)[0]
    key = next(key for key in run.samples() if key.subset == "toy-object-contact")
    clip = tab.evaluate("key => data.clips[key][0]", "/".join(map(str, key)))
    known = current_rows(run, "flow-dis")[key].values["motion_curve"]
    assert clip["curves"]["motion_amount"] == pytest.approx(known.tolist(), rel=1e-3)
    near = clip["near"]["motion_frechet"]
    label = tab.locator("#player .near").first.inner_text()
    assert f"nearest real clip for motion frechet: {near['prompt']}, seed {near['seed']}" in label
    assert tab.locator("#player .near video").count() == 3
    tab.evaluate("bench.scrub(5)")
    tab.evaluate("bench.seeking")
    times = tab.evaluate("bench.every().map(one => Math.floor(one.currentTime * 8))")
    assert times == [5] * 9, "clips, pictures and reference clips stand at one frame"
    tab.locator("#player .picture").select_option(label="nothing")
    assert tab.locator("#player .over").count() == 0
    assert not opened.complaints
    opened.context.close()


@pytest.mark.browser
def test_the_gallery_has_all_clips_and_loads_those_in_view(inside, out):
    tab = inside.page
    tab.evaluate("document.getElementById('gallery').scrollIntoView({ behavior: 'instant' })")
    tab.locator(".tile").first.wait_for()
    assert tab.locator(".tile").count() == 3 * 2 * 3 and "18 clips" in tab.locator("#gallery-count").inner_text()
    names = [tab.locator(".tile span").nth(place).inner_text().split("\n")[0].strip() for place in range(3)]
    assert names == [folder.path.name for folder in folders(out)]
    wait_until(tab, "document.querySelectorAll('.tile video').length > 0")
    found = tab.evaluate("(showGallery(), chosenTiles().length)")
    key = tab.evaluate("Object.keys(data.clips)[0]")
    kept = (
        "const of = data.clips[key]; const [first] = of; of[0] = null; const n = chosenTiles().length; of[0] = first;"
    )
    assert tab.evaluate(f"(key) => {{ {kept} return n; }}", key) == found - 1, "no tile of what was not asked for"
    tab.select_option("#gallery-run", label="toyworld-flickering")
    tab.select_option("#gallery-subset", label="toy-object-contact")
    assert tab.locator(".tile").count() == 3
    tab.select_option("#gallery-tag", "place: later")
    assert tab.locator(".tile").count() == 2
    tab.select_option("#gallery-tag", "")
    tab.select_option("#gallery-metric", "warping_error")
    tab.select_option("#gallery-order", "highest")
    values = [float(one) for one in tab.locator(".tile b").all_inner_texts()]
    assert values == sorted(values, reverse=True) and len({*values}) == 3
    tab.locator("#gallery-from").fill(str(values[1] * 0.999))
    tab.locator("#gallery-from").blur()
    assert tab.locator(".tile").count() == 2
    tab.locator(".tile").first.focus()
    tab.keyboard.press("Enter")
    assert tab.locator("#player .name").inner_text() in tab.locator(".tile").first.get_attribute("aria-label")
    tab.evaluate("heldInPlace.disconnect(), scrollTo(0, 0)")  # else the clips, which were opened, keep their place
    wait_until(tab, "document.querySelectorAll('.tile video').length === 0")
    assert not inside.complaints


def test_a_run_has_a_tile_for_each_clip_that_it_was_asked_for_and_a_table_or_plot_for_each_metric_shown(tmp_path):
    one = evaluated(made_run(tmp_path / "one", names=["toy-control"], count=4))
    two = evaluated(made_run(tmp_path / "two", names=["toy-control"], count=5, seeds=(0, 1), onsets=1.0))
    key = Key("toy-control", one.subsets()[0].prompts[3].id, 0)
    one.add_sample(dataclasses.replace(one.samples()[key], spec_mismatch="fps 16 where 8 is asked for"))
    runs, frame = [one, two], leaderboard([one, two])
    gone, unmarked = {"missing": "gone"}, {}
    with mock.patch.object(clips, "card", lambda *_: gone), mock.patch.object(page, "_times", lambda *_: unmarked):
        shown, _ = page._clips(runs, tmp_path, explain.NOTHING)
        only = frame[frame["metric"] == "onset_rate"]
        html = page.render(runs, only, over_motion(runs), tmp_path, differences_of(runs, metrics=["onset_rate"]))
    counts = [sum(of_runs[k] is not None for of_runs in shown.values()) for k in range(2)]
    assert counts == [24, 48], "of 24 prompts, with one seed and with two"
    lost = [
        sum(of_runs[k]["missing"] == "it was not sampled" for of_runs in shown.values() if of_runs[k]) for k in (0, 1)
    ]
    assert lost == [24 - 4, 48 - 2 * 5]
    form = shown["/".join(map(str, key))][0]["form"]
    assert {name: form[name] for name in ("width", "frames", "fps", "seconds")} == {
        "width": 64,
        "frames": 16,
        "fps": 8,
        "seconds": 2,
    }
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html).group(1))
    assert [*data["values"]["toy-control"]] == [*data["metrics"]] == ["onset_rate"]
    assert {*re.findall(r'data-metric="(\w+)"', html)} == {"onset_rate"}, "only what is in the tables"


def test_a_dot_over_motion_carries_its_seed():
    of_clip = {("p", 0): (0.3, 1.0), ("p", 1): (0.31, 2.0), ("q", 0): (0.32, 3.0)}
    rows = [
        ("s", prompt, seed, metric, "a", value)
        for (prompt, seed), pair in of_clip.items()
        for metric, value in zip(("motion_amount", "fvd"), pair, strict=True)
    ]
    values = pd.DataFrame(rows, columns=["subset", "prompt", "seed", "metric", "model", "value"])
    one = {"subset": "s", "metric": "fvd", "model": "a", "bin": 4, "low": 0.2, "high": 0.4, "n": 3, "mean": 2.0}
    (figure,) = plots.over_motion(values, pd.DataFrame([one]), ["a"], "s")
    dots = [dot for dot in ET.fromstring(figure.drawing).iter(f"{SVG}circle") if dot.get("data-prompt")]
    heights = {(dot.get("data-prompt"), int(dot.get("data-seed"))): -float(dot.get("cy")) for dot in dots}
    assert sorted(heights, key=heights.get) == [*of_clip]


@pytest.mark.parametrize("values", [(-0.0376, 0.004), (0, 379_000)])
def test_a_number_of_an_axis_is_not_cut_off(values):
    """A cut sign would turn a number over: letters are about 6.4 pixels wide, and the drawing 440."""
    axis = svg.scale([*values], 12.0, 428.0)
    for one in ET.fromstring(svg.drawing([svg.across(axis, 0, 9)], 440, 50, "")).iter(f"{SVG}text"):
        half = len(one.text) * svg.LETTER / 2
        assert half <= float(one.get("x")) <= 440 - half


def to_target(metric, *pairs):
    """Differences of these pairs of runs, which are of distances from the reference's value."""
    return pd.DataFrame(pairs, columns=["run", "against"]).assign(
        subset="s", metric=metric, kind=TO_TARGET, difference=-9.0, low=-10.0, high=-8.0
    )


def test_a_paired_figure_has_the_differences_of_the_prompts():
    rows = [
        ("s", f"p{k}", seed, "fvd", run, value * k + seed)
        for k in range(3)
        for seed in (0, 1)
        for run, value in (("a", 1.0), ("b", 3.0))
    ]
    values = pd.DataFrame(rows, columns=["subset", "prompt", "seed", "metric", "model", "value"])
    values.loc[len(values)] = ("s", "alone", 0, "fvd", "a", 7.0)
    (figure,) = plots.paired(values, ["a", "b"], "s", to_target("fvd", ("b", "a")))
    drawn = ET.fromstring(figure.drawing)
    dots = {one.get("data-prompt"): float(one.get("cx")) for one in drawn.iter(f"{SVG}circle")}
    assert [*dots] == ["p0", "p1", "p2"]
    assert dots["p1"] - dots["p0"] == pytest.approx(dots["p2"] - dots["p1"], abs=0.2)
    assert f"b minus a: 2.00 [{2 - 4.303 * 2 / 3**0.5:.3g}, {2 + 4.303 * 2 / 3**0.5:.3g}]" in drawn.get("aria-label")


def test_the_axis_of_levels_is_in_lufs_and_that_of_their_differences_in_lu():
    rows = [("s", f"p{k}", 0, "loudness", run, -20.0 - k * at) for k in range(3) for at, run in enumerate("ab")]
    values = pd.DataFrame(rows, columns=["subset", "prompt", "seed", "metric", "model", "value"])
    (figure,) = plots.paired(values, ["a", "b"], "s", to_target("loudness", ("b", "a")))
    assert "in LU" in figure.drawing and "LUFS" not in figure.drawing
    assert plots._unit_and_way("loudness")[0] == "in LUFS"


def test_a_paired_figure_shows_the_compared_pairs_of_a_metric_with_a_target():
    slopes = {"a": 1.0, "b": 2.0, "c": 4.0}
    rows = [("s", f"p{k}", 0, "motion_amount", run, slope * k) for k in range(3) for run, slope in slopes.items()]
    values = pd.DataFrame(rows, columns=["subset", "prompt", "seed", "metric", "model", "value"])
    made = to_target("motion_amount", ("b", "a"), ("c", "a"), ("c", "b"))
    (figure,) = plots.paired(values, ["a", "b", "c"], "s", made)
    told = ET.fromstring(figure.drawing).get("aria-label")
    assert "b minus a: 1.00 [" in told and "c minus a: 3.00 [" in told and "c minus b: 2.00 [" in told


def test_the_waveform_shows_channels_that_cancel_each_other(tmp_path):
    """The second half has a tone of 0.25 in one channel and the same turned over in the other: root 0.5, of 255."""
    wave = np.zeros((2, 16000), np.float32)
    wave[0, 8000:] = 0.25 * np.sign(np.sin(np.arange(8000)))
    wave[1] = -wave[0]
    clip = avbench.Clip(moving(8), Fraction(8), avbench.Audio(wave, 16000))
    clips.encode(clip, tmp_path, "c")
    peaks = np.frombuffer(base64.b64decode(clips.card(tmp_path, "c")["peaks"]), np.uint8)
    assert not peaks[:119].any() and (peaks[121:] == round(255 * 0.5)).all()


def test_long_names_leave_room_for_the_rest_of_their_line():
    """A line has 416 pixels; letters of the page's font have about 6.4 on average, digits and capitals more."""
    names = ["a" * 60 + "-1", "b" * 60 + "-2"]
    rows = [("s", f"p{k}", 0, "fvd", name, float(k)) for k in range(3) for name in names]
    values = pd.DataFrame(rows, columns=["subset", "prompt", "seed", "metric", "model", "value"])
    (figure,) = plots.paired(values, names, "s", to_target("fvd", (names[1], names[0])))
    (told,) = [one.text for one in ET.fromstring(figure.drawing).iter(f"{SVG}text") if "−" in one.text]
    assert re.fullmatch(r"b+…b+-2 − a+…a+-1", told) and 40 < len(told) < 65
    numbers = {"value": 1234.5, "null": 200.0, "null_sd": 5.0, "floor": 190.0, "n": 24, "p": 0.001, "too_few": None}
    scores = pd.DataFrame([{"subset": "s", "metric": "fvd", "model": name, **numbers} for name in names])
    (figure,) = plots.distances(scores.assign(null_within_prompts=[True, False]), names, "s")
    told = [one.text for one in ET.fromstring(figure.drawing).iter(f"{SVG}text") if "…" in one.text]
    assert [one.partition("-")[2] for one in told] == [
        "1: 1234, 24 clips, p 0.001 within prompts",
        "2: 1234, 24 clips, p 0.001 across prompts",
    ]
    assert all(len(one) < 65 for one in told)


@pytest.mark.parametrize(
    ("metric", "caption"),
    [
        ("fvd", "fvd, left is better"),
        ("motion_amount_distance", "motion amount distance, in diagonals/s, left is better"),
        ("precision", "precision, right is better"),
    ],
)
def test_the_plot_of_a_distance_names_its_better_side(metric, caption):
    numbers = {"value": 0.8, "null": 0.9, "null_sd": 0.05, "floor": 0.9, "n": 24, "p": 0.001, "too_few": None}
    scores = pd.DataFrame([{"subset": "s", "metric": metric, "model": "a", **numbers, "null_within_prompts": True}])
    (figure,) = plots.distances(scores, ["a"], "s")
    told = [one.text for one in ET.fromstring(figure.drawing).iter(f"{SVG}text")]
    assert caption in told and not any("reference" in one for one in told)


def test_a_plot_writes_numbers_as_the_tables_do():
    numbers = {"value": 12345.6, "null": 345.6, "null_sd": 0.05, "floor": 0.9, "n": 24, "p": 0.001, "too_few": None}
    scores = pd.DataFrame([{"subset": "s", "metric": "fvd", "model": "a", **numbers, "null_within_prompts": True}])
    (figure,) = plots.distances(scores, ["a"], "s")
    drawing = ET.fromstring(figure.drawing)
    assert "a: 12346, 24 clips, p 0.001" in [one.text for one in drawing.iter(f"{SVG}text")]
    assert drawing.get("aria-label") == "fvd: a 12346, null 346"


@pytest.mark.browser
def test_names_that_are_read_from_the_right_do_not_turn_what_stands_beside_them(browser):
    """Of ``ב-1 − א-2`` the first name stands on the left in a plot and in a table, as the table's head says."""
    words = "ב-1 − א-2: 245, 24 clips"
    drawn = svg.drawing([svg.text(0, 20, words)], 400, 40, "")
    cell = page.template("page.html").environment.filters["apart"](words)
    tab = browser.new_page()
    tab.set_content(f"<p>{drawn}</p><p id=cell>{cell}</p>")
    places = """() => {
      const drawn = document.querySelector('text');
      const nodes = document.createTreeWalker(document.getElementById('cell'), NodeFilter.SHOW_TEXT);
      const inPlot = [...drawn.textContent].map((letter, k) => [letter, drawn.getStartPositionOfChar(k).x]);
      const inCell = [];
      for (let node; (node = nodes.nextNode());) [...node.data].forEach((letter, k) => {
        const range = document.createRange();
        range.setStart(node, k); range.setEnd(node, k + 1);
        inCell.push([letter, range.getBoundingClientRect().x]);
      });
      return [inPlot, inCell];
    }"""
    for found in tab.evaluate(places):
        where = {letter: x for letter, x in reversed(found)}  # the first of each
        wanted = ["ב", "−", "א", ":", "5", "c"]
        assert sorted(wanted, key=where.get) == wanted
    tab.close()


@pytest.mark.browser
def test_a_page_of_one_run_sorts_its_clips_and_has_no_vote(out, browser, tmp_path):
    (run,) = folders(out)[:1]
    list(clips.prepare([run], tmp_path / "media")[1])
    path = tmp_path / "report.html"
    path.write_text(page.render([run], leaderboard([run]), over_motion([run]), tmp_path / "media", NOTHING_COMPARED))
    opened = Opened(browser, path)
    tab = opened.page
    tab.evaluate("document.getElementById('clips').scrollIntoView({ behavior: 'instant' })")
    assert not tab.locator("#run").is_visible() and not tab.locator("#against").is_visible()
    tab.select_option("#metric", label="motion_amount")
    listed = dict(row.split("\n") for row in tab.locator("#list li").all_inner_texts())
    values = read_values(run)
    here = (values["metric"] == "motion_amount") & (values["subset"] == tab.evaluate("data.subsets[subset].name"))
    known = values[here].set_index("prompt")["value"].to_dict()
    assert [*listed] == sorted(known, key=known.get) and len(listed) == 3
    assert {name: float(text) for name, text in listed.items()} == pytest.approx(known, rel=1e-3)
    tab.click("[data-jump='1']")
    assert tab.locator("#player .name").inner_text() == max(known, key=known.get)
    opened.context.close()
    opened = Opened(browser, path, "#vote")
    tab = opened.page
    assert "No pair of clips to vote on" in tab.locator("#voting").inner_text()
    assert not tab.locator("h1 >> text=toyworld").is_visible(), "a rater sees no name"
    assert all(one.is_disabled() for one in tab.locator("#voting button:visible").all())
    tab.keyboard.press("e")
    assert tab.locator("#changed").inner_text() == "", "there is nothing to export"
    numbers = [0.00012346, -1.5, 1234.56, 12345.6, None]
    assert [tab.evaluate("short", one) for one in numbers] == ["0.0001235", "-1.5", "1235", "12346", "–"]
    assert not opened.complaints
    opened.context.close()


def test_playable_clips_have_even_sizes_and_a_browsers_sound(tmp_path):
    from fractions import Fraction

    from avbench.core import Audio, Clip
    from avbench.storage.media import read_clip, write_clip

    frames = np.random.default_rng(0).integers(0, 255, (4, 301, 1201, 3), np.uint8)
    sound = Audio(np.zeros((4, 5000), np.float32), 10_000)
    write_clip(Clip(frames, Fraction(8), sound), tmp_path / "x.mkv")
    clips._maker(tmp_path, ("flow",))(clips.Task(tmp_path / "x.mkv", "x"))
    made = read_clip(tmp_path / "x.mp4")
    assert (made.width, made.height, len(made.frames)) == (480, 120, 4)
    assert made.audio.sample_rate == 48000 and made.audio.channels == 1
    clips._maker(tmp_path, ())(clips.Task(Path("nowhere.mkv"), "y"))
    assert "nowhere.mkv" in clips.card(tmp_path, "y")["missing"]
