"""A machine without any weights, behind a hub of its own: one command fetches a network and measures with it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from file_server import serving
from tiny_clap import clap_folder, tokenizer_folder

from avbench.core import Audio, Clip
from avbench.storage.media import write_clip
from avbench.storage.weights.published import PUBLISHED

CAPTIONS = {"one": "a dull knock", "two": "a bright clang"}


@pytest.fixture
def hub(tmp_path):
    """A hub that has the published files of ``clap``, of a tiny network."""
    model, _ = clap_folder(tmp_path / "tiny")
    tokenizer_folder(tmp_path / "tiny")
    torch.save(model.state_dict(), tmp_path / "tiny" / "pytorch_model.bin")
    source = PUBLISHED["clap"].source
    files = {f"/{source.repository}/{name}": (tmp_path / "tiny" / name).read_bytes() for name in source.files}
    with serving(files) as server:
        yield server


@pytest.fixture
def score(tmp_path):
    """A function that scores two clips with sound, in a process of its own, on a machine with nothing in its caches."""
    rng = np.random.default_rng(0)
    (tmp_path / "clips").mkdir()
    for name in CAPTIONS:
        frames = rng.integers(0, 255, (16, 32, 32, 3), np.uint8)
        sound = Audio(rng.uniform(-0.3, 0.3, (1, 32_000)).astype(np.float32), 16_000)
        write_clip(Clip(frames, 8, sound), tmp_path / "clips" / f"{name}.mkv")
    lines = [{"id": name, "video_caption": text, "audio_caption": text} for name, text in CAPTIONS.items()]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def scored(address, *more):
        folders = {name: str(tmp_path / "home" / name) for name in ("HF_HOME", "AVBENCH_WEIGHTS", "XDG_CACHE_HOME")}
        command = [sys.executable, "-m", "avbench", "score", "clips", "--prompts", "prompts.jsonl", "--workers", "0"]
        command += ["--metric", "clap_text_audio", *more]
        environment = {**os.environ, **folders, "HF_ENDPOINT": address}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return scored


@pytest.mark.slow
def test_one_command_fetches_and_measures(hub, score, tmp_path):
    without = score(hub.address)
    assert without.returncode == 2 and not hub.asked
    assert "`avbench weights fetch clap` downloads it (about 615 MB)" in without.stderr

    done = score(hub.address, "--fetch")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "runs/score/clips/scores.json").read_text())["scores"]
    assert found["metric"] == "clap_text_audio" and found["n"] == 2 and -1 <= found["value"] <= 1
    (protocol,) = (tmp_path / "runs/score/clips/features").glob("clap-text-audio@*/protocol.json")
    assert PUBLISHED["clap"].source.revision[:12] in json.loads(protocol.read_text())["notes"]["fetched"]
    assert (tmp_path / "home/AVBENCH_WEIGHTS/clap/config.json").resolve().is_relative_to(tmp_path / "home/HF_HOME")

    asked = len(hub.asked)
    assert score(hub.address).returncode == 0 and len(hub.asked) == asked, "what is there is not asked for again"


@pytest.mark.slow
def test_without_a_network_one_sentence_says_so(hub, score):
    hub.shutdown()
    hub.server_close()
    done = score(hub.address, "--fetch")
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("avbench: ")]
    assert done.returncode == 2 and "the hub cannot be reached, and its cache does not hold laion/" in sentence
    assert "`avbench weights fetch clap --file PATH`" in sentence and "Traceback" not in done.stderr
