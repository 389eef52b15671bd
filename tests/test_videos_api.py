"""A server's failures cost no more than they must: no job is paid twice, refusals are answers, keys stay secret."""

import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from functools import partial

import httpx
import pytest
from video_service import Service

from avbench.core import InputError, Prompt, Subset
from avbench.generation.names import run_name
from avbench.generation.sample import sample
from avbench.generation.table import build
from avbench.storage.media import read_clip
from avbench.storage.reading import read_lines
from avbench.storage.runs.folder import RunFolder
from avbench.storage.servers import BrokenError, Deadline, LostError, Server
from avbench.storage.writing import line_of

KEY = "sk-secret-0123456789"
FORM = {"frames": 8, "fps": 8, "width": 64, "height": 64, "poll_seconds": 0.02, "key_env": "TEST_VIDEO_KEY"}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    started = Service(tmp_path_factory.mktemp("server")).start()
    yield started
    started.kill()


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEST_VIDEO_KEY", KEY)


def subset(*words):
    return Subset("s", 1, tuple(Prompt(word, f"a {word} cat", "it meows") for word in words), None)


def run(place, model, *words, seeds=(0,), **settings):
    """Sample; what became of each word's first seed."""
    folder = RunFolder(place)
    with folder.writing():
        for _ in sample(folder, model, {**FORM, **settings}, [subset(*words)], seeds)[1]:
            pass
    return {key.prompt: one for key, one in folder.samples().items() if key.seed == 0}


def lost(place, word, seed):
    """Write down a job whose answer was lost by a kill."""
    (place / "jobs").mkdir(parents=True)
    step = {"key": ["s", word, seed], "state": "intent", "prompt": f"a {word} cat it meows", "token": "t"}
    line = line_of({**step, "unix_seconds": time.time() - 5})
    (place / "jobs" / "jobs.jsonl").write_bytes(line + b'{"torn')


GOOD = ["good", "busy", "wobbly", "early", "cut", "lost", "late5xx"]
BAD = {
    "banned": "content_policy_violation",
    "forbidden": "moderation_blocked: It was blocked",
    "broken": r"job \w+ failed: server_error: out of memory",
    "wrong": "the server answers 400: invalid_size: no such size",
    "html": "the server sent text instead of a video: '<html>",
    "codec": "cannot be read",
    "huge": "the server offers 10000 MB, but at most 1 MB",
    "endless": "the download is larger, but at most 1 MB",
    "expired": "its clip is not there: .* answers 410",
    "gone": "the server no longer knows job",
    "asleep": "no clip within 40 s: .*was cut off",
    "stuck": "no clip within 40 s: job .* is still in_progress",
}
ONE_MORE = ("broken", "gone")
"""What is submitted anew by the same command, because the server said that the job came to nothing."""


@pytest.mark.slow
def test_every_failure_is_a_clip_or_a_sentence(service, tmp_path):
    made = run(tmp_path / "r", service.url(), *GOOD, *BAD, deadline=40, most_megabytes=1, concurrency=20)
    assert {word for word, one in made.items() if one.path} == set(GOOD)
    for word, sentence in BAD.items():
        assert re.search(sentence, made[word].failure), made[word].failure
    assert {word for word, one in made.items() if one.refused} == {"banned", "forbidden"}
    for word in [*GOOD, *BAD]:
        assert service.count(f" {word} ") == (word not in ("banned", "wrong")), word
    asked = next(job for job in service.jobs() if "good" in job["prompt"])
    assert asked["prompt"] == "a good cat it meows"
    sent = {name: asked["asked"][name] for name in ("num_frames", "fps", "seed", "size", "generate_sound", "model")}
    expected = {"num_frames": "8", "fps": "8", "seed": "0", "size": "64x64", "generate_sound": "true", "model": "m"}
    assert sent == expected
    clip = read_clip(tmp_path / "r" / made["good"].path)
    assert clip.frames.shape == (8, 64, 64, 3) and clip.fps == 8 and clip.audio.sample_rate == 16000
    assert not [
        path for path in (tmp_path / "r" / "jobs").iterdir() if path.name not in ("jobs.jsonl", "s--codec-0.mp4")
    ]
    # the same command again: refusals stand, jobs that came to nothing are submitted anew, others only asked for
    again = run(tmp_path / "r", service.url(), *GOOD, *BAD, deadline=3, most_megabytes=1, concurrency=20)
    assert {word for word, one in again.items() if one.path} == set(GOOD)
    for word in [*GOOD, *BAD]:
        assert service.count(f" {word} ") == (word not in ("banned", "wrong")) + (word in ONE_MORE), word
    for path in (tmp_path / "r").rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def answering(monkeypatch, *answers):
    """A server that gives these answers in turn."""
    left = iter(answers)
    transport = httpx.MockTransport(lambda asked: next(left))
    monkeypatch.setattr(httpx, "Client", partial(httpx.Client, transport=transport))
    return Server("http://host/v1", None, {}, first_pause=0.001)


def test_an_answer_that_cannot_be_decoded_is_a_lost_one(tmp_path, monkeypatch):
    garbled = [
        httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip")) for _ in range(3)
    ]
    server = answering(monkeypatch, *garbled[:2], httpx.Response(200, json={"id": "v1"}), garbled[2])
    with pytest.raises(LostError, match="host"):
        server.ask("POST", "videos", Deadline(60), twice=False)
    assert server.ask("GET", "videos/v1", Deadline(60)).plain == {"id": "v1"}, "what may be asked twice is asked again"
    with pytest.raises(BrokenError, match="the download was cut off"):
        server.download("videos/v1/content", tmp_path / "clip.mp4", Deadline(60), most_bytes=100)


@pytest.mark.parametrize(
    "pause", ["²", "soon", "Mon, 16 Nov 2009 13:32:02 +9999999999999999999"], ids=["digit", "word", "offset"]
)
def test_a_retry_after_that_is_no_time_is_as_good_as_none(monkeypatch, pause):
    busy = httpx.Response(429, headers={"retry-after": pause.encode("latin-1")})
    server = answering(monkeypatch, busy, httpx.Response(200, json={"id": "v1"}))
    assert server.ask("POST", "videos", Deadline(60), twice=False).plain == {"id": "v1"}


def test_a_wrong_key_is_told_without_it(service, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_VIDEO_KEY", "sk-other-999")
    made = run(tmp_path / "r", service.url(), "keyless")
    assert "401" in made["keyless"].failure and "***" in made["keyless"].failure
    assert "sk-other" not in (tmp_path / "r" / "samples.jsonl").read_text()
    for value, message in (("", "is not set"), ("a\nb", "cannot be sent in a header")):
        monkeypatch.setenv("TEST_VIDEO_KEY", value)
        with pytest.raises(InputError, match=message):
            build(service.url(), FORM)
    with pytest.raises(InputError) as refused:
        build(service.url(), {"key_env": "sk-a-key-by-mistake"})
    assert "mistake" not in str(refused.value)
    with pytest.raises(InputError) as refused:
        build("videos-api:https://me:pass@host/v1?key=abc#m", {})
    assert "pass" not in str(refused.value) and "abc" not in str(refused.value)


def test_a_server_that_nobody_started_is_told_at_the_start(service, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        stopped = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        (remark,) = build(f"videos-api:{stopped}#m", {**FORM, "deadline": 60}).remarks([])
    assert remark.startswith(f"{stopped} cannot be reached (")
    assert "waits for it for 60 s (-M deadline=)" in remark
    assert build(service.url(), FORM).remarks([]) == []


def test_settings_are_checked_before_anything_is_sent(service, tmp_path):
    for wrong, message in (
        ({"shape": "opanai"}, "did you mean 'openai'"),
        ({"body": "xml"}, "choices: json, multipart"),
        ({"deadline": 0}, "deadline is 0"),
        ({"text": "{caption}"}, "may be {video} and {audio}"),
        ({"fps": "fast"}, "fps is 'fast'"),
        ({"frames": "abc"}, "frames is 'abc'; it must be a whole number of at least 1"),
        ({"frames": 0}, "frames is 0; it must be a whole number of at least 1"),
        ({"width": 832.0, "height": 480}, "width is 832.0; it must be a whole number"),
        ({"concurrency": 0.5}, "concurrency is 0.5; it must be a whole number"),
        ({"extra": 5}, "extra is 5; it must be an object"),
        ({"shape": 3}, "shape is 3; it must be text"),
        ({"text": None}, "text is None; it must be text"),
        ({"resubmit": "no"}, "resubmit is 'no'; it must be true or false"),
        ({"mixed": 1}, "mixed is 1; it must be true or false"),
    ):
        with pytest.raises(InputError, match=message):
            build(service.url(), wrong)
    with pytest.raises(InputError, match="http"):
        build("videos-api:localhost#m", {})
    folder = RunFolder(tmp_path)
    list(sample(folder, service.url(), {"poll_seconds": 0.1}, [subset("formless")], [0])[1])
    (made,) = folder.samples().values()
    assert "give -M frames=" in made.failure and not service.count("formless")
    for given, other in (("width", "height"), ("height", "width")):
        folder = RunFolder(tmp_path / given)
        form = {"frames": 8, "fps": 8, given: 832, "poll_seconds": 0.1}
        list(sample(folder, service.url(), form, [subset("formless")], [0])[1])
        (made,) = folder.samples().values()
        assert f"-M {given}=832 is given, but no {other}" in made.failure and not service.count("formless")


def test_json_is_sent_where_asked_and_fields_are_added_and_left_out(service, tmp_path):
    extra = {"num_inference_steps": 3, "generate_sound": None}
    run(tmp_path, service.url(), "plain", body="json", extra=extra)
    asked = next(job["asked"] for job in service.jobs() if "plain" in job["prompt"])
    assert asked["num_frames"] == 8 and asked["num_inference_steps"] == 3 and "generate_sound" not in asked


def test_a_server_that_ignores_what_was_requested_is_noticed(service, tmp_path):
    """Without these fields in the request, the server makes its own 8 frames of 64×64 at 8 fps."""
    ignored = {"num_frames": None, "size": None, "fps": None}
    asked = {"frames": 20, "fps": 24, "width": 96, "height": 64}
    made = run(tmp_path / "other", service.url(), "stubborn", extra=ignored, **asked)["stubborn"]
    assert made.path and made.remark == (
        "not as it was requested: frames 8 where 20 is asked for, fps 8 where 24 is asked for, width 64 where 96 is "
        "asked for"
    )
    assert run(tmp_path / "same", service.url(), "obedient", **asked)["obedient"].remark is None


def test_openrouter(service, tmp_path):
    words = ("router", "router-forbidden", "router-lost")
    made = run(tmp_path, service.url("api/v1"), *words, shape="openrouter")
    asked = next(job["asked"] for job in service.jobs() if " router " in job["prompt"])
    assert asked["duration"] == 1 and asked["generate_audio"] is True and asked["aspect_ratio"] == "1:1"
    assert made["router"].path and made["router-forbidden"].refused
    assert "cannot list its jobs" in made["router-lost"].failure and "resubmit=true" in made["router-lost"].failure
    assert service.count("router-lost") == 1, "it may be under way"
    made = run(tmp_path, service.url("api/v1"), *words, shape="openrouter", resubmit=True)
    assert made["router-lost"].path and service.count("router-lost") == 2


def test_veo_and_its_key_stays_at_home(service, tmp_path):
    made = run(tmp_path, service.url("v1beta"), "veo", "veo-forbidden", shape="veo")
    assert made["veo"].path and made["veo-forbidden"].failure == "It may not be shown."
    assert made["veo-forbidden"].refused
    (job,) = (job for job in service.jobs() if " veo " in job["prompt"])
    assert job["asked"]["parameters"] == {"durationSeconds": 1, "aspectRatio": "1:1", "resolution": "64p"}
    downloads = [one["key"] for one in read_lines(service.folder / "downloads.jsonl") if one["id"] == job["id"]]
    assert downloads == [False], "the address it was redirected to is another host's"


def test_fal_asks_for_the_result_and_its_key_stays_at_home(service, tmp_path):
    words = ("fal", "fal-forbidden", "fal-broken", "fal-wrong")
    model = service.url("fal").replace("#m", "#owner/app/text-to-video")
    made = run(tmp_path, model, *words, shape="fal", extra={"resolution": "480p", "num_frames": None})
    assert made["fal"].path and read_clip(tmp_path / made["fal"].path).frames.shape == (8, 64, 64, 3)
    assert (
        made["fal-forbidden"].refused and "content_policy_violation: It was flagged." in made["fal-forbidden"].failure
    )
    assert "runner_disconnected: Runner disconnected" in made["fal-broken"].failure
    assert "the server answers 400: invalid_size" in made["fal-wrong"].failure
    (job,) = (job for job in service.jobs() if " fal " in job["prompt"])
    expected = {"prompt": "a fal cat it meows", "seed": 0, "frames_per_second": 8, "resolution": "480p"}
    assert job["asked"] == expected
    downloads = [one["key"] for one in read_lines(service.folder / "downloads.jsonl") if one["id"] == job["id"]]
    assert downloads == [False], "the clip lies on another host"
    again = run(tmp_path, model, *words, shape="fal", extra={"resolution": "480p", "num_frames": None})
    assert again["fal"] == made["fal"] and service.count(" fal-forbidden ") == 1
    assert service.count(" fal-broken ") == 2, "what the server says has failed is submitted anew"


def test_other_peoples_jobs_are_not_taken_for_lost_ones(service, tmp_path):
    """A lost answer that two listed jobs could belong to is told, not guessed."""
    run(tmp_path / "other", service.url(), "twin")
    lost(tmp_path / "mine", "twin", 0)
    run(tmp_path / "third", service.url(), "twin", "solo")
    made = run(tmp_path / "mine", service.url(), "twin")
    assert "several of the server's jobs may be it" in made["twin"].failure and service.count(" twin ") == 2


def test_an_earlier_lost_job_is_not_taken_for_that_of_another_seed(service, tmp_path):
    run(tmp_path / "before", service.url(), "lost-twice", seeds=(1,))
    lost(tmp_path / "after", "lost-twice", 1)
    run(tmp_path / "after", service.url(), "lost-twice", seeds=(0, 1), concurrency=1)
    assert [job["asked"]["seed"] for job in service.jobs() if "lost-twice" in job["prompt"]] == ["1", "0"]
    steps = read_lines(tmp_path / "after" / "jobs" / "jobs.jsonl")
    last = {step["key"][2]: step["job"] for step in steps if step.get("job")}
    seeds = {job["id"]: int(job["asked"]["seed"]) for job in service.jobs() if "lost-twice" in job["prompt"]}
    assert {seed: seeds[job] for seed, job in last.items()} == {0: 0, 1: 1}


def test_another_model_behind_the_name_is_noticed(service, tmp_path):
    models, runs = service.folder / "models.json", service.folder / "runs.txt"

    def serve(root):
        entries = [{"id": "m", "root": root, "created": time.time()}, {"id": "other", "root": str(time.time())}]
        models.write_text(json.dumps({"object": "list", "data": entries}))

    try:
        serve("ckpt-1")
        made = run(tmp_path / "r", service.url(), "first")
        assert run(tmp_path / "r", service.url(), "first") == made, "the time and the other models say nothing"
        serve("ckpt-2")
        with pytest.raises(
            InputError, match=r"1 of 1 clips of .* changed.*ckpt-1.* would now come from .*ckpt-2.*--replace"
        ):
            run(tmp_path / "r", service.url(), "first")
        assert service.count(" first ") == 1
        models.unlink()
        assert run(tmp_path / "r", service.url(), "first") == made, "what is not said is not another"
        runs.write_text("m-2027")
        words, one_by_one = ("second", "third", "fourth"), {**FORM, "concurrency": 1}
        asked = (RunFolder(tmp_path / "s"), service.url(), one_by_one, [subset(*words)], [0])
        next(sample(*asked)[1])  # and killed
        runs.write_text("m-2028")
        made = run(tmp_path / "s", service.url(), *words, concurrency=1)
        failed = [one.failure for one in made.values() if one.failure]
        assert len(failed) == 2 and all("runs 'm-2028'" in why and "are from 'm-2027'" in why for why in failed)
        assert sum(service.count(f" {word} ") for word in words) == 2, "after its first answer nothing more is paid"
    finally:
        models.unlink(missing_ok=True)
        runs.unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [int(os.environ.get("AVBENCH_CHAOS_SEED", "0"))])
def test_killed_anywhere_every_job_is_paid_once(tmp_path, seed):
    """Client and server die at random points, and everything that can go wrong does, sometimes."""
    chances = random.Random(seed)
    service = Service(tmp_path / "server", seed).start()
    words = ("one", "two", "three", "forbidden", "five", "six")
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("".join(json.dumps({"id": word, "prompt": f"a {word} cat"}) + "\n" for word in words))
    options = [f"-M{name}={value}" for name, value in FORM.items()]
    command = [sys.executable, "-m", "avbench", "sample", service.url(), "--prompts", prompts, "--seeds", 2]
    command = [*map(str, command), *options, "-Mdeadline=40", "-Mconcurrency=3", "--out", str(tmp_path)]
    folder = RunFolder(tmp_path / run_name(service.url()))
    written = [folder.path / "jobs" / "jobs.jsonl", folder.path / "samples.jsonl"]
    kills, done, next_kill = [], False, chances.randrange(1, 1500)
    while not done:
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while client.poll() is None:
            time.sleep(0.01)
            if service.process.poll() is not None:  # it may die of its own chaos as well
                service.start()
            progress = sum(path.stat().st_size for path in written if path.exists())
            if len(kills) < 5 and progress >= next_kill:
                time.sleep(chances.uniform(0, 0.1))
                next_kill = progress + chances.randrange(1, 1500)
                kills.append(chances.choice(["client", "server"]))
                client.kill() if kills[-1] == "client" else service.kill()
        message = client.stderr.read().decode()
        client.stderr.close()
        assert "Traceback" not in message
        done = client.returncode == 0
        assert done or client.returncode < 0, [one.failure for one in folder.samples().values()]
    service.kill()
    assert len(kills) >= 2, kills
    samples, jobs = folder.samples(), {job["id"]: job for job in service.jobs()}
    assert len(samples) == 12 and len(list((folder.path / "clips").rglob("*.mp4"))) == 10
    for key, one in samples.items():
        assert (one.path is None) == one.refused == (key.prompt == "forbidden"), one
    paid = sorted((job["prompt"], job["asked"]["seed"]) for job in jobs.values())
    assert paid == sorted((f"a {word} cat", str(n)) for word in words for n in range(2)), "each once"
    for line in read_lines(folder.path / "jobs" / "jobs.jsonl"):
        if line["job"]:
            assert jobs[line["job"]]["asked"]["seed"] == str(line["key"][2]), "seeds did not change places"
