"""A web server on the loopback address with intact, moved, truncated and missing files, files that
never end or lead elsewhere, and files named by the status of their answer.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_REDIRECTS = {
    "moved.md": "/secret/a.md",
    "loop.md": "/in/loop.md",
    "file.md": "file:///etc/passwd",
}
TEXT = b"# Title\n\nwords of the web"


class _Handler(BaseHTTPRequestHandler):
    ended: threading.Event

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        if name.startswith("drip"):
            self._drip(name)
            return
        if name in _REDIRECTS:
            self.send_response(302)
            self.send_header("Location", _REDIRECTS[name])
            self.end_headers()
        elif name in ("a.md", "secret.md"):
            self._send(TEXT, len(TEXT))
        elif name == "cut.md":
            self._send(TEXT, len(TEXT) + 100)
        else:
            status = name.removesuffix(".md")
            self.send_error(int(status) if status.isdigit() else 404)

    def _drip(self, name: str) -> None:
        """Sends a byte at a time, each within any timeout of a read."""
        if name == "drip-body.md":
            self.send_response(200)
            self.end_headers()
        else:
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
        try:
            while not self.ended.wait(0.02):
                self.wfile.write(b"x")
        except OSError:
            return  # The client has had enough.

    def _send(self, content: bytes, said: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(said))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def web_server() -> Iterator[str]:
    """Runs the server for the duration of the context; yields its URL without a final slash."""
    ended = threading.Event()
    handler = type("Handler", (_Handler,), {"ended": ended})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
