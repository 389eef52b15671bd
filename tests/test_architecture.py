"""Imports go one way, modules of a kind do not know each other, and --help needs no heavy import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import avbench

PACKAGE = Path(avbench.__file__).parent
FLOORS = [
    {"core"},
    {"reading"},
    {
        "media",
        "folder",
        "clip_files",
        "content",
        "inputs",
        "pickles",
        "shipped",
        "weights",
        "engine",
        "recognise",
        "clip_form",
        "avfulldit",
        "toyworld",
    },
    {"subsets", "datasets", "generators", "features", "metrics", "uncertainty", "paired", "plan"},
    {"as_subset", "foreign", "lint", "reference", "sample", "measure", "train", "contract", "doctor"},
    {"distances"},
    {"evaluate", "presets", "curate"},
    {"compare", "votes"},
    {"differences", "power"},
    {"leaderboard", "gate", "report", "hook", "train_report"},
    {"cli"},
]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("avbench"):
            base = node.module.split(".")[1:]
            yield from ([*base] if base else [name.name] for name in (node.names if not base else node.names[:1]))
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1:] for name in node.names if name.name.startswith("avbench."))


def floor(room):
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ("__init__", "__main__", "_data"):
        return
    for target in imports(path):
        if not target or target[0] in (room, "__version__"):
            continue
        assert floor(target[0]) <= floor(room), f"{path.name} imports {target[0]}"
        if room in ("toyworld", "avfulldit"):
            assert target[0] in ("core", "reading"), f"{path} imports {target[0]}"
        if room in ("generators", "features", "metrics"):
            assert target[0] not in {"generators", "features", "metrics"} - {room}, f"{path} imports {target[0]}"


@pytest.mark.parametrize("kind", ["generators", "features", "metrics"])
def test_modules_of_a_kind_do_not_import_each_other(kind):
    for path in (PACKAGE / kind).glob("*.py"):
        others = [target for target in imports(path) if target[:1] == [kind] and len(target) > 1]
        assert not others, f"{path.name} imports {others}"


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
