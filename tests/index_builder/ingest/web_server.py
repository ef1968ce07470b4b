"""A web server on the loopback address with intact, moved, busy, truncated and missing files."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEXT = b"# Title\n\nwords of the web"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if name == "moved.md":
            self.send_response(302)
            self.send_header("Location", "/secret/a.md")
            self.end_headers()
        elif name in ("a.md", "secret.md"):
            self._send(TEXT, len(TEXT))
        elif name == "cut.md":
            self._send(TEXT, len(TEXT) + 100)
        else:
            self.send_error({"busy.md": 503, "limited.md": 429}.get(name, 404))

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
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
