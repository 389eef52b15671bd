"""The process of `video_server.py`, as tests start, kill and ask it."""

import subprocess
import sys
from pathlib import Path

from avbench.storage.reading import read_lines

SERVER = Path(__file__).with_name("video_server.py")


class Service:
    """It may be killed and started again at the same port."""

    def __init__(self, folder, *chaos):
        self.folder, self.chaos, self.port = folder, chaos, 0
        folder.mkdir(exist_ok=True)

    def start(self):
        command = [sys.executable, SERVER, self.folder, *map(str, (self.port, *self.chaos))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with self.process.stdout as said:
            port = said.readline()
        assert port, "the server did not start"
        self.port = int(port)
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def url(self, path="v1"):
        return f"videos-api:http://127.0.0.1:{self.port}/{path}#m"

    def jobs(self):
        return read_lines(self.folder / "jobs.jsonl")

    def count(self, word):
        return sum(word in job["prompt"] for job in self.jobs())
