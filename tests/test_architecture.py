"""Imports go one way between the folders of avbench, and --help needs no heavy import."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import avbench

PACKAGE = Path(avbench.__file__).parent
MAY_IMPORT = {
    "core": set(),
    "storage": {"core"},
    "statistics": {"core", "storage"},
    "avfulldit": {"core", "storage"},
    "toyworld": {"core", "storage"},
    "subsets": {"core", "storage"},
    "generation": {"core", "storage", "avfulldit", "toyworld"},
    "features": {"core", "storage", "toyworld"},
    "metrics": {"core", "storage", "statistics", "features"},
    "training": {"core", "storage", "avfulldit", "toyworld", "subsets", "generation", "features"},
    "curation": {"core", "storage", "subsets", "features", "metrics"},
    "comparison": {"core", "storage", "statistics", "generation", "features", "metrics"},
    "report": {"core", "storage", "statistics", "subsets", "generation", "features", "metrics", "comparison"},
    "api": {"core", "storage", "subsets", "generation", "features", "metrics", "comparison", "report"},
    "cli": None,  # everything
}
"""Folder → the folders below it that it may import: a row here is all that a new folder needs."""


def imports(path):
    """The folders of avbench that a file imports, with the whole module name."""
    for node in ast.walk(ast.parse(path.read_text())):
        assert not getattr(node, "level", 0), f"{path} has a relative import: name the whole module"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "avbench":
            base = node.module.split(".")[1:]
            yield from ([*base, name.name] for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1:] for name in node.names if name.name.startswith("avbench."))


def test_the_folders_are_those_of_the_table():
    there = {path.stem for path in PACKAGE.iterdir() if path.name != "__pycache__" and path.name != "_data"}
    assert there - {"__init__", "__main__", "py"} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    folder = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = MAY_IMPORT.get(folder)
    if folder in ("__init__", "__main__") or allowed is None:
        return
    for target in imports(path):
        assert target[0] in {*allowed, folder}, f"{folder}/{path.name} imports {'.'.join(target)}"


def test_the_folders_of_storage_build_on_each_other_in_one_order():
    """Folders of `storage` and files beside them: whoever reads runs need not know mirrors, and media knows neither."""
    needs = {}
    for path in (PACKAGE / "storage").rglob("*.py"):
        part = path.relative_to(PACKAGE / "storage").parts[0].removesuffix(".py")
        needs.setdefault(part, set()).update(to[1] for to in imports(path) if to[0] == "storage" and to[1] != part)
    assert [*TopologicalSorter(needs).static_order()], "a circle"
    assert not {"runs", "mirrors"} & set().union(*(needs[part] for part in ("media", "reading", "weights", "workers")))
    assert "mirrors" not in needs["runs"]


def test_no_text_is_read_or_written_in_the_encoding_of_the_locale():
    """Under a locale such as ISO-8859-1 the page had wrong signs, and under ASCII the report ended."""
    without = [
        f"{path.relative_to(PACKAGE)}:{call.lineno}"
        for path in PACKAGE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if call.func.attr in ("read_text", "write_text")
        or (call.func.attr == "open" and {"a", "w"} & {getattr(one, "value", None) for one in call.args[:1]})
        if "encoding" not in {one.arg for one in call.keywords}
    ]
    assert not without


@pytest.mark.parametrize("kind", ["generation/providers", "features", "metrics"])
def test_plug_ins_of_a_kind_do_not_import_each_other(kind):
    """A new provider, feature or metric is one file: none leans on another of its kind."""
    shared = {"__init__", "table", "measure", "worker", "requirements", "protocols", "current"}
    shared |= {"evaluate", "kept", "distances", "feature_sets", "reference", "reference_building", "sync_settings"}
    shared |= {"imported_statistics", "devices", "limits", "networks", "winograd"}
    lent = {"features/audio/waveform", "features/flow/raft"}
    depth = len(kind.split("/"))
    for path in (PACKAGE / kind).rglob("*.py"):
        own = path.relative_to(PACKAGE / kind).parts[0].removesuffix(".py")
        if own in shared:
            continue
        others = [
            target
            for target in imports(path)
            if "/".join(target).startswith(f"{kind}/")
            and target[depth] not in {own, *shared}
            and "/".join(target[: depth + 2]) not in lent
        ]
        assert not others, f"{path} imports {others}"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['avbench', '--help']\n"
        "from avbench import cli\n"
        "try: cli.app()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'cv2', 'av', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_protocols_of_the_usual_metrics_need_no_torch():
    """`compare` and `report` read protocols only; torch takes seconds and hundreds of megabytes."""
    code = (
        "import sys\n"
        "from avbench import api\n"
        "from avbench.features.protocols import protocol_of\n"
        "from avbench.metrics.evaluate import chosen_metrics, features_of\n"
        "for feature in features_of(chosen_metrics(None)): protocol_of(feature)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_workers_of_the_page_do_without_torch():
    """It would cost `avbench report` a second and 300 MiB."""
    code = (
        "import functools\n"
        "from avbench.report.page import clips\n"
        "from avbench.storage.workers import worker_pool\n"
        "seen = functools.partial(eval, \"lambda module: module in __import__('sys').modules\")\n"
        "pool = worker_pool.LocalPool(1, imports=[clips.__name__])\n"
        "assert dict(pool.map_unordered(seen, ['torch'])) == {'torch': False}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
