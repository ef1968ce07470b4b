"""A language model that always says the same, as an OpenAI-compatible server on loopback."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Its second sentence names no source, so the checks take it out.
_ANSWER = "The entry describes it [1]. The moon consists of cheese."


class _Chat(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Streams the answer."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for delta, finish in (({"content": _ANSWER}, None), ({}, "stop")):
            self._event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        usage = {"prompt_tokens": 500, "completion_tokens": 20, "total_tokens": 520}
        self._event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""

    def _event(self, data: object) -> None:
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())


@contextlib.contextmanager
def chat_server() -> Iterator[str]:
    """Runs the server for the duration of the block; yields its base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Chat)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
