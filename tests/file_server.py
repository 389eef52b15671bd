"""A server of files on the loopback interface, with ranges, redirects and broken connections, that is also a tiny hub.

``with serving({"/a/w.pth": b"…"}) as server:`` serves that path. ``/OWNER/NAME/resolve/REVISION/FILE`` of the Hugging
Face hub is served from the path ``/OWNER/NAME/FILE``; a branch is at the commit COMMIT.
"""

import hashlib
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" * 6 + "c0de"


class FileServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = dict(files)
        self.redirects = {}
        """Path → address."""
        self.cuts = []
        """After how many bytes the next answers break off."""
        self.kind = "application/octet-stream"
        self.asked = []
        """Method, path and the header Range of every request."""

    def handle_error(self, request, client_address):
        """Print nothing: a client that breaks off is meant."""

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        server = self.server
        server.asked.append((self.command, self.path, self.headers.get("Range")))
        if self.path in server.redirects:
            self.head(302, {"Location": server.redirects[self.path], "Content-Length": "0"})
            return
        data = server.files.get(re.sub(r"/resolve/[^/]+", "", self.path))
        if data is None:
            missing = {"X-Error-Code": "EntryNotFound"} if "/resolve/" in self.path else {}
            self.head(404, {"Content-Length": "0", **missing})
            return
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        headers = {"ETag": etag, "Content-Type": server.kind, "Accept-Ranges": "bytes"}
        if revision := re.search(r"/resolve/([^/]+)", self.path):
            headers["X-Repo-Commit"] = revision[1] if len(revision[1]) == 40 else COMMIT
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.headers.get("If-Range", etag) == etag else 0
        if start and start >= len(data):
            self.head(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.head(206 if start else 200, {**headers, "Content-Length": str(len(data) - start)})
        if body:
            cut = server.cuts.pop(0) if server.cuts else None
            self.wfile.write(data[start:][:cut])
            self.close_connection = self.close_connection or cut is not None

    def head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def serving(files):
    with FileServer(files) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
