"""A server that speaks the video APIs, with everything that goes wrong; run as a process of its own.

``python tests/video_server.py FOLDER PORT [CHAOS_SEED]`` prints its port when it can be reached; PORT 0 is a free one.
Each job is a line of FOLDER/jobs.jsonl, on disk before it is answered, so that jobs outlive a kill and can be counted.
A word in the prompt makes one thing go wrong; under a chaos seed anything does, sometimes. Clips are real mp4s with
sound, and depend on prompt and seed alone.
"""

import email
import json
import os
import random
import sys
import tempfile
import threading
import time
import urllib.parse
import zlib
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from avbench.core import Audio, Clip
from avbench.storage.media import write_clip
from avbench.storage.reading import read_lines
from avbench.storage.writing import append_line

KEY = "sk-secret-0123456789"
FOLDER = Path(sys.argv[1])
CHAOS = random.Random(int(sys.argv[3])) if len(sys.argv) > 3 else None
JOBS = {job["id"]: job for job in read_lines(FOLDER / "jobs.jsonl")}
LOCK = threading.Lock()
SEEN: dict[str, int] = {}
"""How often a thing was asked for."""


def clip_bytes(job):
    asked = job["asked"]
    width, _, height = str(asked.get("size", "64x64")).partition("x")
    count, fps = int(asked.get("num_frames", 8)), Fraction(str(asked.get("fps", 8)))
    rng = np.random.default_rng([zlib.crc32(job["prompt"].encode()), int(asked.get("seed", 0))])
    picture = np.repeat(np.repeat(rng.integers(0, 256, (8, 8, 3), np.uint8), int(height) // 8, 0), int(width) // 8, 1)
    frames = np.stack([np.roll(picture, 2 * k, axis=1) for k in range(count)])
    tone = np.sin(np.arange(round(16000 * count / fps)) * rng.uniform(0.05, 0.3), dtype=np.float64)
    sound = Audio((0.3 * tone[None]).astype(np.float32), 16000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(Clip(frames, fps, sound), path, lossless=False)
        return path.read_bytes()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, plain, **headers):
        self.send(status, json.dumps(plain).encode(), "application/json", **headers)

    def send(self, status, body, kind, *, length=None, **headers):
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(length or len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def drop(self):
        self.close_connection = True

    def unlucky(self, share):
        return CHAOS is not None and CHAOS.random() < share

    def first(self, what, times=1):
        """Whether this was not asked for more than so often."""
        with LOCK:
            SEEN[what] = SEEN.get(what, 0) + 1
            return SEEN[what] <= times

    def with_key(self):
        return any(self.headers.get(name) for name in ("x-goog-api-key", "authorization"))

    def locked_out(self):
        given = self.headers.get("authorization", "").removeprefix("Bearer ").removeprefix("Key ") or self.headers.get(
            "x-goog-api-key"
        )
        if given in (None, "", KEY):
            return False
        self.answer(401, {"error": {"message": f"Incorrect API key provided: {given}", "code": "invalid_api_key"}})
        return True

    def body(self):
        raw = self.rfile.read(int(self.headers["content-length"]))
        kind = self.headers["content-type"]
        if kind.startswith("application/json"):
            return json.loads(raw)
        parts = email.message_from_bytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + raw).get_payload()
        return {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True).decode()
            for part in parts
        }

    def do_POST(self):
        asked = self.body()
        if self.locked_out():
            return
        prompt = asked["instances"][0]["prompt"] if "instances" in asked else asked["prompt"]
        if ("busy" in prompt and self.first(prompt)) or self.unlucky(0.1):
            return self.answer(429, {"error": {"message": "slow down"}}, Retry_After="0")
        if "banned" in prompt:
            words = {"code": "content_policy_violation", "message": "Your request was rejected."}
            return self.answer(400, {"error": words})
        if "wrong" in prompt:
            return self.answer(400, {"error": {"code": "invalid_size", "message": "no such size"}})
        if self.unlucky(0.05):
            return self.answer(500, {"error": {"message": "before it was taken"}})
        name = f"v{os.urandom(6).hex()}"
        veo = self.path.endswith(":predictLongRunning")
        job = {"id": f"operations/{name}" if veo else name, "prompt": prompt, "asked": asked, "created_at": time.time()}
        if (FOLDER / "runs.txt").exists():
            job["model"] = (FOLDER / "runs.txt").read_text()
        job["headers"] = {"idempotency-key": self.headers.get("idempotency-key")}
        with LOCK:
            JOBS[job["id"]] = job
            append_line(FOLDER / "jobs.jsonl", job, durable=True)
        if ("lost" in prompt and self.first(prompt, 1 + ("twice" in prompt))) or self.unlucky(0.1):
            return self.drop()
        if self.unlucky(0.05):
            os._exit(9)  # taken, and dead before it said so
        if "late5xx" in prompt and self.first(prompt):
            return self.answer(502, {"error": {"message": "gateway"}})
        if veo:
            return self.answer(200, {"name": job["id"]})
        if self.path.startswith("/fal/"):
            app = "/".join(self.path.split("/")[:4])  # what follows owner and app is left out, as fal.ai does
            place = f"http://127.0.0.1:{PORT}{app}/requests/{name}"
            urls = {"status_url": f"{place}/status", "response_url": place}
            return self.answer(200, {"status": "IN_QUEUE", "request_id": name, "queue_position": 0, **urls})
        if self.path.startswith("/api/v1"):
            return self.answer(202, {"id": job["id"], "polling_url": f"{self.path}/{job['id']}", "status": "pending"})
        return self.answer(200, {**self.public(job), "status": "queued"})

    def public(self, job):
        return {
            "id": job["id"],
            "object": "video",
            "prompt": job["prompt"],
            "created_at": job["created_at"],
            "model": job.get("model", "m-2026"),
        }

    def do_GET(self):
        if self.locked_out():
            return None
        path, _, query = self.path.partition("?")
        if path.endswith("/models") and (FOLDER / "models.json").exists():
            return self.send(200, (FOLDER / "models.json").read_bytes(), "application/json")
        if self.unlucky(0.1):
            return self.answer(random.choice([500, 503]), {"error": "oh"})
        if self.unlucky(0.05):
            return self.drop()
        if path == "/v1/videos":
            return self.list(dict(urllib.parse.parse_qsl(query)))
        name = path.removesuffix("/content").rpartition("/")[2]
        if path.startswith("/fal/"):
            return self.fal(path)
        job = JOBS.get(name) or JOBS.get(f"operations/{name}")
        if path.startswith("/redirected"):
            return self.send(302, b"", "text/plain", location=f"http://localhost:{PORT}/v1/videos/{name}/content")
        if job is None or "gone" in job["prompt"]:
            return self.answer(404, {"error": {"message": "no such video"}})
        if path.endswith("/content"):
            return self.content(job)
        return self.poll(job)

    def list(self, query):
        jobs = sorted(JOBS.values(), key=lambda job: -job["created_at"])
        ids = [job["id"] for job in jobs]
        start = ids.index(query["after"]) + 1 if "after" in query else 0
        page = jobs[start : start + 2]  # small, so that pages are turned
        self.answer(200, {"object": "list", "data": [*map(self.public, page)], "has_more": start + 2 < len(jobs)})

    def poll(self, job):
        prompt, headers = job["prompt"], {}
        if "wobbly" in prompt and self.first(f"poll {job['id']}", 2):
            return self.answer(500, {"error": "wobble"})
        if "stuck" in prompt or (self.first(f"state {job['id']}", 1)):
            status, headers = {"status": "in_progress", "progress": 50}, {"openai_poll_after_ms": "20"}
        elif "forbidden" in prompt:
            status = {"status": "failed", "error": {"code": "moderation_blocked", "message": "It was blocked."}}
        elif "broken" in prompt:
            status = {"status": "failed", "error": {"code": "server_error", "message": "out of memory"}}
        else:
            status = {"status": "completed", "progress": 100}
        if "instances" not in job["asked"]:
            return self.answer(200, {**self.public(job), **status}, **headers)
        plain = {"name": job["id"], "done": status["status"] != "in_progress"}
        if status["status"] == "completed":
            uri = f"http://127.0.0.1:{PORT}/redirected/{job['id'].removeprefix('operations/')}"
            plain["response"] = {"generateVideoResponse": {"generatedSamples": [{"video": {"uri": uri}}]}}
        elif status["status"] == "failed":
            reasons = {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": ["It may not be shown."]}
            plain["response"] = {"generateVideoResponse": reasons}
        return self.answer(200, plain)

    def fal(self, path):
        """The status of a request; once it is completed, its result."""
        name = path.removesuffix("/status").rpartition("/")[2]
        job = JOBS[name]
        prompt = job["prompt"]
        if not path.endswith("/status"):
            if "forbidden" in prompt:
                detail = {"loc": ["body", "prompt"], "msg": "It was flagged.", "type": "content_policy_violation"}
                return self.answer(422, {"detail": [detail]})
            address = f"http://localhost:{PORT}/redirected/{name}"  # another host, as fal.ai's files are
            return self.answer(200, {"video": {"url": address}, "seed": job["asked"]["seed"]})
        if self.first(f"state {name}", 1):
            return self.answer(202, {"status": "IN_PROGRESS"})
        ended = {"error": "Runner disconnected", "error_type": "runner_disconnected"} if "broken" in prompt else {}
        return self.answer(200, {"status": "COMPLETED", **ended})

    def content(self, job):
        prompt, body = job["prompt"], clip_bytes(job)
        with LOCK:
            append_line(FOLDER / "downloads.jsonl", {"id": job["id"], "key": self.with_key()})
        if ("early" in prompt and self.first(f"content {job['id']}", 2)) or self.unlucky(0.1):
            return self.answer(404, {"detail": "still in-progress"})
        if "expired" in prompt:
            return self.answer(410, {"detail": "expired"})
        if "html" in prompt:
            return self.send(200, b"<html><body>Sign in</body></html>", "video/mp4")
        if "codec" in prompt:
            return self.send(200, bytes(range(256)) * 40, "video/mp4")
        if "huge" in prompt:
            return self.send(200, body, "video/mp4", length=10 * 10**9)
        if "endless" in prompt:
            return self.endless(body)
        if "asleep" in prompt:
            time.sleep(60)
            return self.drop()
        if ("cut" in prompt and self.first(f"content {job['id']}", 2)) or self.unlucky(0.1):
            self.close_connection = True
            return self.send(200, body[: len(body) // 2], "video/mp4", length=len(body))
        return self.send(200, body, "video/mp4")

    def endless(self, body):
        """Ten gigabytes in chunks, without saying how much there is."""
        self.send_response(200)
        for name, value in (("content-type", "video/mp4"), ("transfer-encoding", "chunked")):
            self.send_header(name, value)
        self.end_headers()
        chunk = body[:8] + bytes(2**20)
        for _ in range(10_000):
            self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients that were killed


SERVER = Server(("127.0.0.1", int(sys.argv[2])), Handler)
PORT = SERVER.server_port
sys.stdout.write(f"{PORT}\n")
sys.stdout.flush()
SERVER.serve_forever()
