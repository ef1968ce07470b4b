"""An S3 that carries out a conditional write, and answers with an error."""

from __future__ import annotations

import secrets
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from nearline.errors import AlreadyExists
from nearline.store.open import open_files
from nearline.store.registry import Registry
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2

_App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class LosesAnswers:
    """An S3 server that answers 503 to the next PUTs of a path, after carrying them out."""

    def __init__(self) -> None:
        self.puts: list[str] = []
        self.lose = 0
        self._app: _App = DomainDispatcherApplication(create_backend_app)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "PUT" or environ["PATH_INFO"].count("/") < 2:
            return self._app(environ, start_response)
        self.puts.append(environ["PATH_INFO"])
        if not self.lose:
            return self._app(environ, start_response)
        self.lose -= 1
        b"".join(self._app(environ, lambda *_: None))
        start_response("503 Slow Down", [("Content-Length", "0")])
        return [b""]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[LosesAnswers, str]]:
    app = LosesAnswers()
    serving = make_server("127.0.0.1", 0, app, threaded=False)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{serving.server_port}"
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "NEARLINE_CACHE_DIR": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"b-{secrets.token_hex(6)}"
    made = urllib.request.Request(f"{endpoint}/{bucket}", method="PUT")
    urllib.request.urlopen(made, timeout=10).close()
    yield app, f"s3://{bucket}/prefix"
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_a_write_whose_answer_was_lost_has_succeeded(server: tuple[LosesAnswers, str]) -> None:
    app, url = server
    store = Store(open_files(url))
    app.lose = 1
    record = snapshot_pb2.AliasRecord(epoch=1, current="20260101T000000Z-000000", who="me")
    store.create_alias_record("default", record)
    # It was sent again, and found itself.
    assert len(app.puts) == 2
    assert store.alias_in_force("default") == record
    other = snapshot_pb2.AliasRecord(epoch=1, current="20260101T000000Z-000000", who="you")
    with pytest.raises(AlreadyExists, match="alias record 1"):
        store.create_alias_record("default", other)


def test_two_who_saw_the_same_versions_never_get_one_number(
    server: tuple[LosesAnswers, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, url = server
    store = Store(open_files(url))
    registry = Registry(store)
    app.lose = 1
    assert registry._claim("_models/prompt/p", "me") == 1
    # Another process of the same user listed the versions before.
    seen, names = [list[str]()], store.files.names
    monkeypatch.setattr(
        type(store.files), "names", lambda self, path: seen.pop() if seen else names(path)
    )
    assert registry._claim("_models/prompt/p", "me") == 2
