"""A wheel in a fresh environment finds its subsets and references, far from any checkout."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_an_installed_wheel_finds_what_it_ships(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("avbench-*.whl")
    fresh = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", fresh], check=True)
    python = fresh / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    # what avbench depends on comes from this environment, avbench itself must not
    (site,) = fresh.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    code = (
        "import avbench; from avbench.metrics import reference; from avbench.subsets import loading as subsets\n"
        "from avbench.avfulldit import BUNDLED\n"
        "for name in subsets.names():\n"
        "    subset = subsets.load(name)\n"
        "    found = name in reference.names() and reference.find(subset).subset_digest == subset.digest\n"
        "    print(avbench.__file__, name, len(subset.prompts), found)\n"
        "print(avbench.__file__, *BUNDLED)"
    )
    elsewhere = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path, env=elsewhere)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert all(line[0].startswith(str(site)) for line in lines)
    assert [line[1:] for line in lines] == [
        ["ambient", "160", "False"],
        ["large-motion", "160", "False"],
        ["object-contact", "200", "False"],
        ["toy-control", "96", "True"],
        ["toy-large-motion", "96", "True"],
        ["toy-object-contact", "96", "True"],
        ["toy-audio", "toy-t2av", "toy-t2v"],
    ]
    listed = subprocess.run(
        [fresh / "bin" / "avbench", "list", "references"], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert "toy-control" in listed.stdout
