"""Stores under test: a folder, memory, and an S3 server on a loopback address."""

from __future__ import annotations

import secrets
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from obstore.store import MemoryStore
from werkzeug.serving import make_server

from nearline.store.files import StoreFiles
from nearline.store.local import LocalFiles
from nearline.store.objects import ObjectFiles
from nearline.store.open import open_files


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Returns the address of an S3 server of this process.

    It handles one request at a time. moto checks for an object and creates it in two steps, so two
    threads of its own server could both succeed in creating an object.
    """
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Returns the URL of an empty bucket; sets the environment for it and caches in tmp_path."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "NEARLINE_CACHE_DIR": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"b-{secrets.token_hex(6)}"
    made = urllib.request.Request(f"{s3_endpoint}/{bucket}", method="PUT")
    urllib.request.urlopen(made, timeout=10).close()
    return f"s3://{bucket}/prefix"


@pytest.fixture(params=["folder", "memory", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> StoreFiles:
    """Returns an empty storage backend of each kind."""
    if request.param == "folder":
        return LocalFiles(tmp_path / "store")
    if request.param == "memory":
        return ObjectFiles(MemoryStore(), "memory://", tmp_path / "cache")
    return open_files(request.getfixturevalue("s3"))
