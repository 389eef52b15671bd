"""Published weights are downloaded whole, resumed, checked and recorded; every failure is one sentence."""

import dataclasses
import errno
import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import run_avbench
from file_server import COMMIT, serving

from avbench.core import InputError, Protocol
from avbench.generation.providers.diffusers.loading import local_folder
from avbench.storage import weights
from avbench.storage.weights import fetching
from avbench.storage.weights.published import PUBLISHED, HubFiles, Published, WebFile

DATA = b"PK" + np.random.default_rng(0).bytes(3_499_998)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server():
    with serving({"/w.pth": DATA, "/tiny/net/config.json": b"{}", "/tiny/net/model.bin": DATA}) as found:
        yield found


@pytest.fixture
def publish(tmp_path, monkeypatch, server):
    """A function that publishes the weight ``tiny`` somewhere, into a cache of its own."""
    from huggingface_hub import constants

    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(weights, "WEIGHTS", {})

    def published(source, **more):
        monkeypatch.setitem(PUBLISHED, "tiny", Published(source, "free", "a few numbers", **more))

    published(WebFile(f"{server.address}/w.pth"), megabytes=4)
    return published


@pytest.fixture
def hub(monkeypatch, server):
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    return HubFiles("tiny/net", ("config.json", "model.bin"))


def left_over(folder):
    return sorted(path.name for path in folder.iterdir() if ".part" in path.name or path.name.endswith(".new"))


def refused(**more):
    with pytest.raises(InputError) as caught:
        fetching.fetch("tiny", **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@dataclasses.dataclass(frozen=True)
class TinyProtocol(Protocol):
    name: str = "tiny"
    version: int = 1
    weights: str = "tiny"
    weights_sha256: str = ""


class Tiny:
    protocol = weights.UserProvidedProtocol(TinyProtocol())


def test_a_file_is_fetched_once_and_recorded(publish, server):
    seen = []

    def follow(stage, count, items):
        seen.append((stage, count, sum(1 for _ in items)))

    path = fetching.fetch("tiny", how=fetching.Fetching(follow=follow))
    assert path.read_bytes() == DATA and weights.locate("tiny") == path
    assert seen == [("fetch tiny", 4, 4)], "one item a megabyte"
    assert not left_over(path.parent)
    fetching.fetch("tiny")
    assert len(server.asked) == 1
    record = weights.fetched("tiny")
    assert record.sha256 == SHA256 and record.address.endswith("/w.pth") and "first download" in record.checked


def test_the_record_is_a_note_of_the_protocol_and_decides_no_number(publish, tmp_path):
    fetching.fetch("tiny")
    fetched = Tiny.protocol
    assert "/w.pth" in fetched.notes["fetched"] and "Licence: free" in fetched.notes["fetched"]
    (tmp_path / "mine").write_bytes(DATA)
    weights.provide("tiny", tmp_path / "mine")
    assert "fetched" not in Tiny.protocol.notes and Tiny.protocol.digest == fetched.digest
    assert Tiny.protocol.weights_sha256 == SHA256


def test_a_record_is_read_once_until_it_changes(publish, monkeypatch):
    fetching.fetch("tiny")
    reads, read = [], weights.read_json
    monkeypatch.setattr(weights, "read_json", lambda *given: reads.append(given) or read(*given))
    weights._record.cache_clear()
    noted = [Tiny.protocol.notes["fetched"] for _ in range(3)]
    assert len(reads) == 1
    (record,) = weights.folder().glob("tiny.json")
    record.write_text(record.read_text().replace("first download", "second download"))
    assert "second download" in Tiny.protocol.notes["fetched"] != noted[0] and len(reads) == 2


def test_a_broken_connection_is_taken_up_again(publish, server):
    server.cuts = [1_000_000, 1_200_000]
    assert fetching.fetch("tiny").read_bytes() == DATA
    first, *others = server.asked
    assert first[2] is None
    assert all(asked[2] and asked[2] != "bytes=0-" for asked in others) and len(others) == 2


def test_an_interrupted_download_continues_in_the_next_call(publish, server, tmp_path):
    server.cuts = [2_100_000, 0]
    message = refused()
    assert "broke off after 2." in message and "the same command continues there" in message
    assert weights.missing(["tiny"]) == ["tiny"] and left_over(tmp_path / "cache")
    assert fetching.fetch("tiny").read_bytes() == DATA
    assert int(server.asked[-1][2].removeprefix("bytes=").removesuffix("-")) >= 2_000_000


def test_a_file_that_changed_meanwhile_is_fetched_anew(publish, server):
    server.cuts = [2_100_000, 0]
    refused()
    server.files["/w.pth"] = other = DATA[:2] + DATA[:1:-1]
    assert fetching.fetch("tiny").read_bytes() == other


def test_a_kill_as_a_newer_file_begins_mixes_no_two_versions(publish, server, monkeypatch):
    server.cuts = [2_100_000, 0]
    refused()
    server.files["/w.pth"] = other = DATA[:2] + DATA[:1:-1]
    write_text = Path.write_text

    def killed(path, *given, **how):
        write_text(path, *given, **how)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "write_text", killed)
        fetching.fetch("tiny")
    assert fetching.fetch("tiny").read_bytes() == other


@pytest.mark.parametrize("more", [b"", b"too much"])
def test_a_part_that_is_whole_or_too_long_is_no_dead_end(publish, server, tmp_path, more):
    server.cuts = [2_100_000, 0]
    refused()
    (part,) = (tmp_path / "cache").glob("*.part")
    part.write_bytes(DATA + more)
    assert fetching.fetch("tiny").read_bytes() == DATA


def test_a_redirect_is_followed(publish, server):
    server.redirects["/old"] = f"{server.address}/w.pth"
    publish(WebFile(f"{server.address}/old"))
    assert fetching.fetch("tiny").read_bytes() == DATA


GIT = hashlib.sha1(b"blob 3500000\0" + DATA).hexdigest()
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.mark.parametrize("known", [f"sha256:{SHA256[:8]}", f"sha256:{SHA256}", f"md5:{MD5}", f"git:{GIT}"])
def test_a_known_hash_is_held_to(publish, server, tmp_path, known):
    publish(WebFile(f"{server.address}/w.pth", known))
    server.files["/w.pth"] = DATA[:-1] + b"?"
    assert f"is not the file that its authors publish, whose hash is {known}" in refused()
    assert weights.missing(["tiny"]) and not left_over(tmp_path / "cache")
    server.files["/w.pth"] = DATA
    fetching.fetch("tiny")
    assert "the hash that its authors publish" in weights.fetched("tiny").checked


def test_an_unknown_hash_is_recorded_and_held_to(publish, server):
    path = fetching.fetch("tiny")
    path.unlink()
    server.files["/w.pth"] = b"PK another file"
    assert "is not what was fetched before" in refused()
    (path.parent / "tiny.json").unlink()
    assert fetching.fetch("tiny").read_bytes() == b"PK another file"
    path.write_bytes(b"damaged now")
    with pytest.raises(InputError, match=r"weight 'tiny' is damaged: .* run `avbench weights fetch tiny`"):
        weights.locate("tiny")


def test_what_is_no_file_is_refused(publish, server):
    publish(WebFile(f"{server.address}/nowhere"))
    assert "answers 404 Not Found; give a copy of the file with `avbench weights fetch tiny --file PATH`" in refused()
    server.kind = "text/html; charset=utf-8"
    publish(WebFile(f"{server.address}/w.pth"))
    assert "answers with a web page" in refused()
    server.kind = "application/octet-stream"
    server.files["/w.pth"] = b"<html>log in first</html>"
    assert "/w.pth gives is no file of weights" in refused()
    assert not [*weights.folder().glob("tiny*")], "nothing is recorded, and the next try begins anew"


@pytest.fixture
def nowhere():
    with serving({}) as gone:
        address = gone.address
    return address


def test_a_file_that_changes_within_a_folder_of_weights_has_another_hash(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net/model.safetensors").write_bytes(b"one")
    before = weights.provided_sha256(tmp_path / "net")
    (tmp_path / "net/model.safetensors").write_bytes(b"two")
    assert weights.provided_sha256(tmp_path / "net") != before


def test_no_network_is_one_sentence(publish, nowhere):
    publish(WebFile(f"{nowhere}/w.pth"))
    assert "the download from 127.0.0.1 could not begin (" in refused()


@pytest.mark.parametrize("why", ["offline", "no network"])
def test_no_hub_is_one_sentence_at_once(publish, monkeypatch, hub, nowhere, why, capfd):
    from huggingface_hub import constants

    publish(hub)
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", why == "offline")
    began = time.monotonic()
    reason = " (HF_HUB_OFFLINE is set)" if why == "offline" else ""
    sentence = refused()
    assert f"the hub cannot be reached, and its cache does not hold tiny/net at main{reason}; give a copy" in sentence
    assert "local_files_only" not in sentence, "an argument of the hub's client, which users do not give"
    assert time.monotonic() - began < 20, "the hub's own client tries again for 25 s"
    assert capfd.readouterr() == ("", ""), "nor are its lines printed"


@pytest.mark.parametrize("address", ["hub.example", "http://[::1", "https://", "ftp://hub", "http://hub:99999"])
def test_a_wrong_address_of_the_hub_is_named(publish, monkeypatch, hub, address):
    """Importing the hub's client fails with some of them, which was "not foreseen"."""
    publish(hub)
    monkeypatch.setenv("HF_ENDPOINT", address)
    sentence = f"the environment variable HF_ENDPOINT is {address!r}; it must be the address of a hub"
    assert sentence in refused()
    with pytest.raises(InputError, match=re.escape(sentence)):
        local_folder("tiny/net", None)


def test_without_a_network_the_cache_of_the_hub_is_enough(publish, monkeypatch, hub, nowhere, tmp_path):
    publish(hub)
    before = fetching.fetch("tiny")
    weights.remove(before)
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    assert (fetching.fetch("tiny") / "model.bin").read_bytes() == DATA


def test_a_licence_that_forbids_some_use_must_be_accepted(publish, server):
    publish(WebFile(f"{server.address}/w.pth"), accept="CC-BY-NC-4.0")
    assert "run `avbench weights fetch tiny --accept-licence CC-BY-NC-4.0`" in refused()
    assert not server.asked
    with pytest.raises(InputError, match=r"did you mean 'CC-BY-NC-4\.0'"):
        fetching.Fetching(accepted=["CC-BY-NC-4"])
    fetching.fetch("tiny", how=fetching.Fetching(accepted=["CC-BY-NC-4.0"]))
    assert weights.fetched("tiny").accepted == "CC-BY-NC-4.0"
    assert "accepted as CC-BY-NC-4.0" in Tiny.protocol.notes["fetched"]


def test_one_sentence_says_what_is_missing(publish, monkeypatch):
    with pytest.raises(InputError, match=r"`avbench weights fetch tiny` downloads it \(about 4 MB\) from http"):
        weights.require(["tiny"])
    big = Published(HubFiles("a/b", ("c",)), "free", "more numbers", accept="CC-BY-NC-4.0")
    monkeypatch.setitem(PUBLISHED, "big", big)
    with pytest.raises(InputError) as caught:
        weights.require(["tiny", "big", "tiny"])
    message = str(caught.value)
    assert message.startswith("2 weights are missing: tiny (about 4 MB, from 127.0.0.1:") and "\n" not in message
    assert "`avbench weights fetch tiny big --accept-licence CC-BY-NC-4.0` fetches about 4 MB and more" in message
    assert message.endswith("and so does --fetch of score, run and measure with the same licences")
    assert "fetches them, whose sizes are not known, and so does --fetch" in weights.how_to_fetch(["big", "big"])


def test_a_folder_comes_from_the_hub_at_one_commit(publish, server, hub):
    publish(hub)
    path = fetching.fetch("tiny")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == {"config.json": b"{}", "model.bin": DATA}
    record = weights.fetched("tiny")
    assert record.revision == COMMIT and "then the newest" in record.checked
    assert any(f"/resolve/{COMMIT}/model.bin" in asked[1] for asked in server.asked)
    first = weights.user_provided("tiny")[1]
    (path / "model.bin").resolve().with_name("unused").write_bytes(b"another file in the hub's cache")
    assert weights.user_provided("tiny")[1] == first == record.sha256


def test_a_pinned_commit_is_asked_for_and_one_file_is_no_folder(publish, server, hub):
    publish(dataclasses.replace(hub, files=("model.bin",), revision=COMMIT))
    assert fetching.fetch("tiny").read_bytes() == DATA
    assert {asked[1] for asked in server.asked} == {f"/tiny/net/resolve/{COMMIT}/model.bin"}
    assert "the commit that avbench pins" in weights.fetched("tiny").checked


def test_a_file_that_the_hub_lacks_or_damages_is_said(publish, server, hub, tmp_path, monkeypatch):
    publish(dataclasses.replace(hub, files=("nothing.bin",)))
    assert "the hub does not have tiny/net at main, or not all of nothing.bin" in refused()
    publish(hub)
    fetching.fetch("tiny")
    blob = (tmp_path / "cache" / "tiny" / "model.bin").resolve()
    blob.write_bytes(DATA[:-1] + b"?")
    weights.remove(tmp_path / "cache" / "tiny")
    assert "model.bin arrived damaged" in refused()
    assert fetching.fetch("tiny").is_dir()


def test_a_mirror_takes_the_place_of_every_address(publish, server, hub, monkeypatch, tmp_path):
    publish(hub)
    server.files |= {"/all/tiny/config.json": b"{}", "/all/tiny/model.bin": DATA}
    monkeypatch.setenv("AVBENCH_WEIGHTS_MIRROR", f"{server.address}/all/")
    path = fetching.fetch("tiny")
    assert (path / "model.bin").read_bytes() == DATA and weights.fetched("tiny").address.endswith("/all/tiny")
    assert not any("/resolve/" in asked[1] for asked in server.asked)
    first = weights.user_provided("tiny")[1]

    monkeypatch.setenv("AVBENCH_WEIGHTS_MIRROR", str(tmp_path / "cache"))
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "another"))
    assert fetching.fetch("tiny") == path.resolve(), "a cache is a mirror: the folder is linked, not copied"
    assert weights.user_provided("tiny")[1] == first
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "third"))
    monkeypatch.setenv("AVBENCH_WEIGHTS_MIRROR", str(tmp_path / "empty"))
    assert "the folder of $AVBENCH_WEIGHTS_MIRROR has no" in refused()


def test_the_users_file_replaces_a_fetched_folder(publish, hub, tmp_path):
    publish(hub)
    fetching.fetch("tiny")
    (tmp_path / "mine").write_bytes(b"PKmine")
    fetching.fetch("tiny", file=tmp_path / "mine")
    assert weights.locate("tiny").read_bytes() == b"PKmine" and weights.fetched("tiny") is None


def test_a_file_of_the_cache_itself_is_refused_and_stays(publish, hub, tmp_path):
    path = fetching.fetch("tiny")
    assert "already, and would be deleted; move it elsewhere" in refused(file=path)
    assert path.read_bytes() == DATA and weights.fetched("tiny") is not None
    publish(hub)
    weights.remove(path)
    weights.record_path("tiny").unlink()
    inside = fetching.fetch("tiny") / "model.bin"
    assert "already, and would be deleted; move it elsewhere" in refused(file=tmp_path / "cache" / "tiny")
    inside.unlink()
    inside.write_bytes(DATA)  # as a mirror's files are there, which are no links
    assert "already, and would be deleted; move it elsewhere" in refused(file=inside)
    assert inside.read_bytes() == DATA


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_kill_on_a_disk_without_locks_is_no_dead_end(publish, tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unsupported)
    lock = tmp_path / "cache" / ".tiny.lock"
    lock.parent.mkdir()
    lock.write_text("4242\nnode7\n4311143923765047713147157426383874355321835548916924610105\n")
    assert f"if no command works there, delete {lock}" in refused()


def test_the_command_line_fetches_lists_and_verifies(publish, server, monkeypatch):
    assert "not fetched" in run_avbench("weights", "list", "--format", "csv").stdout
    publish(WebFile(f"{server.address}/w.pth"), accept="CC-BY-NC-4.0")
    assert "--accept-licence CC-BY-NC-4.0" in run_avbench("weights", "fetch", "tiny", code=2).stderr
    done = run_avbench("weights", "fetch", "tiny", "--accept-licence", "CC-BY-NC-4.0")
    assert "tiny: " in done.stdout and "Licence: free, accepted as CC-BY-NC-4.0." in done.stderr
    assert (
        f",fetched,,a few numbers,free,{server.address}/w.pth,{SHA256[:12]}"
        in run_avbench("weights", "list", "--format", "csv").stdout
    )
    assert "tiny: ok" in run_avbench("weights", "verify").stdout
    weights.locate("tiny").write_bytes(b"damaged")
    assert "tiny: weight 'tiny' is damaged" in run_avbench("weights", "verify", code=1).stdout
    assert ",damaged," in run_avbench("weights", "list", "--format", "csv").stdout
    words = ("run", "toyworld:", "--metric", "silence", "--accept-licence", "CC-BY-NC-4.0")
    assert "--accept-licence has no effect without --fetch" in run_avbench(*words, code=2).stderr


def test_the_table_of_addresses_is_sound():
    for name, one in PUBLISHED.items():
        source = one.source
        if isinstance(source, WebFile):
            algorithm, _, digits = source.known_hash.partition(":")
            least = {"": 0, "sha256": 8, "md5": 32, "git": 40}[algorithm]
            assert len(digits) >= least and source.url.startswith("https://"), name
        else:
            assert len(source.revision) in (0, 40), name
        forbids = any(word in one.licence.lower() for word in ("not for commercial", "-nc"))
        assert bool(one.accept) == forbids, name


def test_a_file_that_holds_no_weights_is_refused(publish, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    done = run_avbench("weights", "fetch", "tiny", "--file", tmp_path / "clip.mp4", code=2)
    assert "clip.mp4 is no file of weights: it is neither of PyTorch nor safetensors" in done.stderr


def test_the_hub_is_asked_in_a_process_that_has_imported_nothing_else():
    """Newer clients import their parts one by one, as they are asked for."""
    command = [sys.executable, "-m", "avbench", "weights", "fetch", "clap"]
    environment = {name: value for name, value in os.environ.items() if name != "HF_ENDPOINT"} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "laion/clap-htsat-unfused" in done.stderr, done.stderr
