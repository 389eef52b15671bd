"""README and docs agree with the code: commands, options, metrics, links and the tree of folders."""

import re
import runpy
import shlex
import tomllib
from pathlib import Path

import pytest
import typer.main

from avbench.core import all_of
from avbench.features.requirements import PACKAGES, weights_of
from avbench.generation.providers.toyworld import CHANGES, WORLDS
from avbench.metrics.evaluate import features_of
from avbench.metrics.table import METRICS
from avbench.storage.media.clip_files import FILE_TAGS
from avbench.storage.weights.published import PUBLISHED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_GUIDES = {"metrics.md", "reliability.md"}
"""Pages of results: what they describe needs no command to copy."""


def test_the_readme_is_short_and_installs_first():
    assert len(README.encode()) <= 8192
    assert README.index("pip install") < README.index("avbench score")


def test_the_readme_lists_the_default_metrics():
    rows = re.findall(r"^\| `(\w+)` \| (lower|higher|band) \|", README, re.MULTILINE)
    assert rows == [(metric.name, str(metric.direction)) for metric in METRICS if metric.usual]


# ---- commands and options


def _options():
    """``(verb, …)`` → the options that it takes."""
    from avbench import cli

    def walk(command, path):
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                yield from walk(inner, (*path, name))
        yield path, {option for parameter in command.params for option in parameter.opts}

    return dict(walk(typer.main.get_command(cli.app), ()))


OPTIONS = _options()
EVERYWHERE = {"--debug", "--help", "-h"}


def _commands(text):
    """Command lines of a page that call avbench: in code blocks, with continued lines joined, and in `code`."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0] for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    for line in lines:
        for part in re.split(r"&& | · ", " ".join(line.split())):
            found = re.match(r"(?:torchrun --nproc-per-node 2 -m )?avbench (\S.*)", part.strip())
            if found:
                yield found.group(1)


def _words(line):
    try:
        return shlex.split(line)
    except ValueError:  # an example cut off in the middle of a quotation
        return line.split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_exists(page):
    for line in _commands(page.read_text()):
        words = _words(line)
        if words[0].startswith("-"):
            assert words[0] in OPTIONS[()] | EVERYWHERE, line
            continue
        verb = (words[0],) if (words[0],) in OPTIONS else ()
        assert verb, f"{page.name}: there is no `avbench {words[0]}`"
        while len(verb) < len(words) and (*verb, words[len(verb)]) in OPTIONS:
            verb = (*verb, words[len(verb)])
        for option in words[len(verb) :]:
            if re.match(r"--?[a-zA-Z]", option):
                assert option.partition("=")[0] in OPTIONS[verb] | EVERYWHERE, f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_named_alone_exists(page):
    known = set().union(*OPTIONS.values()) | EVERYWHERE
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for quoted in re.findall(r"`(--[a-z][\w-]*)[^`]*`", text):
        assert quoted in known, f"{page.name}: no command takes {quoted}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_extra_exists_and_is_installed_from_any_folder(page):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package, extra in re.findall(r"pip install ['\"](.*?)\[(.*?)\]", page.read_text()):
        assert package == "avbench", f"{page.name}: '{package}[{extra}]' is known in a checkout only"
        assert extra in extras, f"{page.name}: avbench has no extra {extra}"


@pytest.mark.parametrize("page", ["metrics.md", "weights.md"])
def test_pages_name_what_a_feature_needs_installed(page):
    text = (ROOT / "docs" / page).read_text().replace('"', "'")
    assert PACKAGES["clap"][1] == "pip install 'avbench[towers]'"
    assert {command for _, command in PACKAGES.values() if f"`{command}`" not in text} == set()


# ---- links


def _anchors(page):
    """Anchors of a page's headings, as GitHub and the site make them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name}: {link}"
        assert page.name == "README.md" or target.parent == ROOT / "docs", f"{page.name}: {link} is not on the site"
        assert not anchor or anchor in _anchors(target), f"{page.name}: {link}"


def test_pages_on_distances_say_how_few_clips_are_too_few():
    least = {metric.name: metric.least_clips for metric in METRICS if metric.least_clips}
    assert least["motion_amount_distance"] == 12 and {
        least[name] for name in ("fvd", "kvd", "motion_frechet", "fad")
    } == {24}
    for page in ("two-folders.md", "real-clips.md"):
        assert "at least 24 clips on both sides" in (ROOT / "docs" / page).read_text(), page


def test_pages_agree_on_how_many_contacts_are_found():
    known_bad = (ROOT / "docs" / "known-bad.md").read_text()
    rates = known_bad.partition("<!-- table: rate -->")[2]
    places = (_first_row(known_bad, "all"), _first_row(rates, "24"), _first_row(rates, "60"))
    (known, right), (known_24, right_24), (known_60, right_60) = (
        [round(100 * float(share)) for share in (recall, precision)] for _, _, recall, _, precision, _ in places
    )
    readme, limits = (" ".join(text.split()) for text in (README, (ROOT / "docs" / "limits.md").read_text()))
    assert f"{right} % of them are contacts, and {known} % of contacts are found" in limits
    assert f"At 24 frames per second {right_24} % and {known_24} %, at 60 {right_60} % and {known_60} %" in limits
    assert f"{right} % of the events on toy clips are contacts, but only {known} % of contacts are found" in readme
    assert f"({known_24} % at 24 frames per second)" in readme


def test_pages_count_the_metrics():
    """All, those on request, those that need weights to fetch, and those that were tried on known-bad models."""
    asked = [{*weights_of(features_of([metric]))} for metric in METRICS]
    needing = sum(bool(one & {*PUBLISHED}) for one in asked)
    tried = len({line.partition(",")[0] for line in (ROOT / "docs/known-bad.csv").read_text().splitlines()[1:]})
    bad = len({*WORLDS, *CHANGES} - {""})
    sentences = [
        ("README.md", f"{needing} of the {len(METRICS)} metrics need weights that no package ships"),
        ("README.md", f"{sum(not metric.usual for metric in METRICS)} more can be chosen by name"),
        ("README.md", f"{tried} metrics are tested against {bad} models"),
        ("docs/known-bad.md", f"{tried} metrics are computed on the embedded world and on {bad} variants of it"),
        ("docs/metrics.md", f"shows by experiment what {tried} of them react to"),
    ]
    outdated = [(page, one) for page, one in sentences if one not in " ".join((ROOT / page).read_text().split())]
    assert outdated == [], f"these sentences should be in the pages, which have other numbers: {outdated}"


def test_the_readme_repeats_the_numbers_of_the_demo():
    demo = (ROOT / "docs" / "demo.md").read_text()
    for name in ("toyworld", "toyworld-frozen", "toyworld-no-contact", "reference"):
        shown, whole = (_first_row(text, name) for text in (README, demo))
        assert shown == [whole[0], whole[5], whole[8]], name


def _first_row(text, name):
    """The cells beside the first of a page's rows of numbers with this name, without marks."""
    rows = (re.split(r"\s*\|\s*", line.strip("| ")) for line in text.splitlines() if line.startswith("|"))
    cells = next(cells for first, *cells in rows if first.strip("`*") == name and re.search(r"\d", cells[0]))
    return [cell.strip("*") for cell in cells]


def test_the_fields_that_name_a_clip_are_listed():
    listed = all_of([f"`{name}`" for name in FILE_TAGS])
    assert listed in (ROOT / "docs" / "two-folders.md").read_text().replace("\n", " ")


def test_every_page_is_on_the_site_and_linked_from_the_index():
    nav = set(re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert nav == {page.name for page in PAGES[1:]}
    linked = {link for page in PAGES[1:] for link in re.findall(r"\]\((\S+?\.md)", page.read_text())}
    assert nav <= linked | {"index.md"}


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_every_page_begins_with_what_the_reader_gets_and_a_command(page):
    if page.name in NOT_GUIDES:
        pytest.skip("a page of results")
    head = page.read_text().split("\n## ")[0]
    assert "```" in head, "no command to copy before the first heading"


# ---- the tree


def test_the_tree_is_the_disk():
    house = (ROOT / "docs/house.md").read_text()
    named = set(re.findall(r"^  (\w+(?:\.py|/)) ", house, re.MULTILINE))
    hidden = {"__init__.py", "__main__.py", "__pycache__/", "_data/", "py.typed"}
    found = {path.name + "/" * path.is_dir() for path in (ROOT / "avbench").iterdir()} - hidden
    assert named == found


def test_the_house_says_who_may_import_whom():
    from test_architecture import MAY_IMPORT

    house = (ROOT / "docs/house.md").read_text().partition("| folder | may import |")[2].partition("\n\n")[0]
    documented = {}
    for folders, allowed in re.findall(r"^\| (`.+?`) \| (.+?) \|$", house, re.MULTILINE):
        for folder in re.findall(r"`(\w+)`", folders):
            documented[folder] = None if allowed == "everything" else set(re.findall(r"`(\w+)`", allowed))
    there = {path.stem for path in (ROOT / "avbench").iterdir()}
    assert documented == {folder: allowed for folder, allowed in MAY_IMPORT.items() if folder in there}


def test_the_metric_reference_is_the_code():
    bench = runpy.run_path(str(ROOT / "benchmarks" / "metric_reference.py"))
    assert (ROOT / "docs" / "metrics.md").read_text() == bench["page"](), "run benchmarks/metric_reference.py --only"
