"""The physics judge: tiny vision-language models beside transformers' own generation, and a local chat server."""

import base64
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from tiny_qwen import qwen_folder

from avbench.core import Clip, InputError, NotMeasurable
from avbench.features.judge import served
from avbench.features.judge.questions import QUESTIONS, JudgeProtocol, rated
from avbench.features.judge.qwen import PhysicsJudge
from avbench.features.judge.served import ServedJudge
from avbench.features.protocols import protocol_of
from avbench.features.requirements import require_ready
from avbench.metrics.table import known_metrics
from avbench.storage import weights
from avbench.storage.media import read_clip, write_clip

PROTOCOL = JudgeProtocol("made", 1)


def clip(seed, count=6):
    random = np.random.RandomState(seed)
    picture = random.randint(0, 256, (1, 7, 7, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    return Clip(np.concatenate([np.roll(picture, 3 * n, axis=2) for n in range(count)]), 8)


# ---- questions and ratings


def answering(*chances):
    """A judge that has these probabilities of 1 to 5, whatever it is asked."""
    return lambda _question: np.array(chances)


def test_a_judge_that_always_says_one_digit_gets_the_middle():
    for chances in ((1, 0, 0, 0, 0), (0, 0, 0, 0.9, 0)):
        found = rated(answering(*chances), PROTOCOL)
        assert found["rating"] == 3
        assert found["spread"] > 0


def test_a_reversed_question_counts_the_other_way():
    """A judge who sees no violation answers 5 where 5 is the best, and 1 where 1 is."""
    best = {question.text: np.eye(5)[question.best - 1] for question in QUESTIONS}
    found = rated(lambda question: 0.75 * best[question] + 0.25 * np.array([0, 0, 1, 0, 0]), PROTOCOL)
    assert found["rating"] == pytest.approx(0.75 * 5 + 0.25 * 3)
    assert found["spread"] == 0
    assert found["mass"] == pytest.approx(1)


def test_the_rating_is_the_mean_of_the_choices_alone():
    """Other answers do not pull it: 0.3 of 4 and 0.3 of 5 is 4.5, if 5 is the best."""
    found = rated(answering(0, 0, 0, 0.3, 0.3), PROTOCOL)
    assert found["ratings"] == pytest.approx([4.5, 1.5, 4.5, 1.5])
    assert found["mass"] == pytest.approx(0.6)


def test_an_answer_that_is_no_choice_is_refused():
    with pytest.raises(NotMeasurable, match=r"these have 40 % of the probability of its answer, and 50 % are needed"):
        rated(answering(0.1, 0.1, 0.1, 0.1, 0), PROTOCOL)


def test_one_frame_is_no_video(server):
    with pytest.raises(NotMeasurable, match="needs 2 frames and this clip has 1"):
        ServedJudge()(clip(0, count=1))
    assert not server.asked


def test_the_range_of_the_spread_ends_at_the_largest_one():
    """A judge that always says 1 is rated 1, 5, 1, 5: squares of 2 four times, over 3, under a root."""
    found = rated(answering(1, 0, 0, 0, 0), PROTOCOL)
    assert found["spread"] == pytest.approx((4 * 2**2 / 3) ** 0.5)
    assert known_metrics()["physics_judge_spread"].bounds == (0, pytest.approx(found["spread"], abs=0.005))


def test_the_metrics_are_rating_and_spread():
    columns = {"rating": np.array([3.5, 1.0]), "spread": np.array([0.25, 0.0])}
    np.testing.assert_array_equal(known_metrics()["physics_judge"].of_clips(columns), [3.5, 1.0])
    np.testing.assert_array_equal(known_metrics()["physics_judge_spread"].of_clips(columns), [0.25, 0.0])


# ---- Qwen-VL


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Kind → network, processor and folder."""
    found = {}
    for kind in ("qwen2_5_vl", "qwen3_vl"):
        folder = tmp_path_factory.mktemp("qwen") / kind
        found[kind] = (*qwen_folder(folder, kind), folder)
    return found


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_the_probabilities_are_those_of_transformers_own_generation(made, cache, kind):
    """By the whole chat call and `generate`, as a user of transformers writes it."""
    model, processor, folder = made[kind]
    weights.provide("qwen-vl", folder)
    judge = PhysicsJudge()
    ratings = []
    for one in (clip(0), clip(1), clip(1, count=40)):
        shown = np.linspace(0, 39, 16).round().astype(int).tolist() if len(one.frames) > 16 else list(range(6))
        when = {"total_num_frames": len(one.frames), "fps": 8.0, "frames_indices": shown}
        found, right = judge(one), []
        for question in QUESTIONS:
            asked = [{"type": "video", "video": one.frames[shown]}, {"type": "text", "text": question.text}]
            read = processor.apply_chat_template(
                [{"role": "user", "content": asked}],
                tokenize=True,
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"do_sample_frames": False, "video_metadata": [dict(when)]},
            )
            told = model.generate(
                **read, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
            chances = told.logits[0][0].double().softmax(dim=-1)
            digits = processor.tokenizer.convert_tokens_to_ids(["1", "2", "3", "4", "5"])
            right.append(chances[digits].numpy())
        np.testing.assert_allclose(found["probabilities"], right, atol=1e-6)
        assert found["mass"] > 0.5
        assert judge(one)["rating"] == found["rating"], "the same clip twice"
        ratings.append(found["rating"])
    assert np.ptp(ratings) > 1e-4, "or it would not see the clips"
    assert 1 < min(ratings) and max(ratings) < 5


@pytest.mark.slow
def test_a_model_that_does_not_answer_has_no_rating(cache):
    qwen_folder(cache / "talker", "qwen2_5_vl", answers=["video", "physics"])
    weights.provide("qwen-vl", cache / "talker")
    with pytest.raises(NotMeasurable, match="does not answer with a digit from 1 to 5"):
        PhysicsJudge()(clip(0))


@pytest.mark.slow
def test_a_folder_of_something_else_is_refused(made, cache):
    import shutil

    other = cache / "other"
    shutil.copytree(made["qwen3_vl"][2], other)
    weights.provide("qwen-vl", other)
    (other / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="has no chat template"):
        PhysicsJudge()
    (other / "model.safetensors").unlink()
    (other / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(InputError, match="cannot be read as a Qwen-VL"):
        PhysicsJudge()
    (other / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="'bert'; choices: qwen2_5_vl, qwen3_vl"):
        PhysicsJudge()


# ---- a server


class Chat(BaseHTTPRequestHandler):
    """Answers as `server.says` wants, and keeps every request in `server.asked`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        status, plain = self.server.says(body)
        sent = json.dumps(plain).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)


def likely(**chances):
    """The answer of OpenAI's chat API whose first token has these probabilities."""
    return logarithms(**{token: math.log(chance) for token, chance in chances.items()})


def logarithms(**chances):
    """The same of their logarithms."""
    top = [{"token": token.replace("_", " "), "logprob": chance} for token, chance in chances.items()]
    return 200, {"choices": [{"logprobs": {"content": [{**top[0], "top_logprobs": top}]}}]}


@pytest.fixture
def server(monkeypatch):
    chat = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    chat.asked, chat.says = [], lambda body: likely(**{"4": 0.5, "_4": 0.25, "5": 0.125, "Sure": 0.125})
    threading.Thread(target=chat.serve_forever, daemon=True).start()
    monkeypatch.setenv("AVBENCH_JUDGE", f"http://127.0.0.1:{chat.server_port}/v1#big/judge")
    monkeypatch.delenv("AVBENCH_JUDGE_KEY", raising=False)
    yield chat
    chat.shutdown()
    chat.server_close()


def test_a_server_is_shown_the_frames_and_asked_every_question(server, monkeypatch):
    monkeypatch.setenv("AVBENCH_JUDGE_KEY", "sk-secret-0123456789")
    one = clip(0, count=40)
    found = ServedJudge()(one)
    assert found["ratings"] == pytest.approx([(4 * 0.75 + 5 * 0.125) / 0.875, 6 - (4 * 0.75 + 5 * 0.125) / 0.875] * 2)
    assert len(server.asked) == len(QUESTIONS)
    for (path, key, body), question in zip(server.asked, QUESTIONS, strict=True):
        assert (path, key) == ("/v1/chat/completions", "Bearer sk-secret-0123456789")
        assert (body["model"], body["max_tokens"], body["temperature"]) == ("big/judge", 1, 0)
        assert body["logprobs"] is True and body["top_logprobs"] == 20
        (message,) = body["messages"]
        *pictures, words = message["content"]
        assert question.text in words["text"]
        sent = [
            cv2.imdecode(np.frombuffer(base64.b64decode(each["image_url"]["url"].split(",")[1]), np.uint8), 1)
            for each in pictures
        ]
        shown = np.linspace(0, 39, 16).round().astype(int)
        np.testing.assert_array_equal(np.stack(sent)[..., ::-1], one.frames[shown])


def test_a_large_frame_is_reduced(server):
    ServedJudge()(Clip(np.zeros((2, 480, 1536, 3), np.uint8), 8))
    picture = server.asked[0][2]["messages"][0]["content"][0]["image_url"]["url"].split(",")[1]
    assert cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), 1).shape == (240, 768, 3)


def test_a_clip_in_its_file_is_shown_as_one_in_memory(server, tmp_path):
    write_clip(clip(0, count=40), tmp_path / "a.mkv")
    for most_held in (10**9, 0):
        ServedJudge()(read_clip(tmp_path / "a.mkv", most_held=most_held))
    first, second = (server.asked[place][2]["messages"] for place in (0, len(QUESTIONS)))
    assert first == second


def test_the_model_belongs_to_the_protocol_and_its_address_does_not(server, monkeypatch):
    before = protocol_of("physics-judge-served")
    monkeypatch.setenv("AVBENCH_JUDGE", "https://elsewhere.example/v1#big/judge")
    assert protocol_of("physics-judge-served").digest == before.digest
    assert protocol_of("physics-judge-served").notes["server"] == "https://elsewhere.example/v1"
    monkeypatch.setenv("AVBENCH_JUDGE", "https://elsewhere.example/v1#another")
    assert protocol_of("physics-judge-served").digest != before.digest


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (None, r"\$AVBENCH_JUDGE is not set: give URL#MODEL"),
        ("http://localhost:8000/v1", r"\$AVBENCH_JUDGE names no server and model"),
        ("http://user:word@localhost:8000/v1#m", "without user, key or query"),
    ],
)
def test_a_server_must_be_named(monkeypatch, address, message):
    monkeypatch.delenv("AVBENCH_JUDGE", raising=False)
    if address:
        monkeypatch.setenv("AVBENCH_JUDGE", address)
    with pytest.raises(InputError, match=message) as refused:
        require_ready(["physics-judge-served"])
    assert "word" not in str(refused.value)


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ((200, {"choices": [{"message": {"content": "4"}}]}), "gives no log-probabilities"),
        ((200, {"choices": [{"logprobs": None}]}), "gives no log-probabilities"),
        (logarithms(**{"4": float("nan"), "2": -1.0}), "gives no log-probabilities"),
        (logarithms(**{"4": 5.0}), "gives no log-probabilities"),
        (logarithms(**{"4": -0.1, "2": -0.1}), "gives no log-probabilities"),
        (logarithms(**{"4": 1e6}), "gives no log-probabilities"),
        ((404, {"error": "no model for sk-secret-0123456789"}), r"answers 404: .*no model for \*\*\*"),
    ],
)  # fmt: skip
def test_a_server_that_does_not_answer_ends_measuring(server, monkeypatch, says, message):
    monkeypatch.setenv("AVBENCH_JUDGE_KEY", "sk-secret-0123456789")
    server.says = lambda body: says
    with pytest.raises(InputError, match=message):
        ServedJudge()(clip(0))


def test_a_dead_server_is_said_in_seconds(monkeypatch):
    monkeypatch.setattr(served, "_FIRST_SECONDS", 0.5)
    monkeypatch.setenv("AVBENCH_JUDGE", "http://127.0.0.1:9/v1#m")
    with pytest.raises(InputError, match=r"no sign of the judge within 0\.5 s: 127\.0\.0\.1 cannot be reached"):
        ServedJudge()


def test_a_server_whose_model_talks_has_no_rating(server):
    server.says = lambda body: likely(The=0.9, **{"3": 0.1})
    with pytest.raises(NotMeasurable, match="these have 10 % of the probability"):
        ServedJudge()(clip(0))


def test_a_busy_server_is_asked_again(server):
    busy, good = iter([(503, {}), (429, {})]), server.says
    server.says = lambda body: next(busy, None) or good(body)
    judge = ServedJudge()
    judge._server._first_pause = 0.01
    assert ServedJudge.protocol.top == 20 and judge(clip(0))["mass"] == pytest.approx(0.875)
    assert len(server.asked) == len(QUESTIONS) + 2
