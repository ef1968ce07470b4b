"""A store at an https endpoint whose certificate is signed by an authority of one's own."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from nearline.errors import StoreError
from nearline.store.open import open_files
from nearline_cli.local.certificates import CertificateAuthority


@contextlib.contextmanager
def s3_over_tls(certificate: Path, key: Path) -> Iterator[str]:
    """Yields the address of an S3 server with the buckets of `s3_endpoint`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=False, ssl_context=context)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_only_a_server_with_a_certificate_of_a_known_authority_is_asked(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("nearline.store.open._RETRIES", 0)
    authority = CertificateAuthority(tmp_path / "tls")
    other = CertificateAuthority(tmp_path / "other")
    with s3_over_tls(*authority.issue("s3", ["127.0.0.1"])) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        for file in (None, other.file):
            if file is not None:
                monkeypatch.setenv("SSL_CERT_FILE", str(file))
            with pytest.raises(StoreError, match=r"cannot list .*unknown authority.*SSL_CERT_FILE"):
                open_files(s3).names("")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        assert open_files(s3).names("") == []
    with s3_over_tls(*authority.issue("s3", ["s3.example.org"])) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(StoreError, match="certificate of the endpoint is of another host"):
            open_files(s3).names("")


@pytest.mark.parametrize(
    "name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT"]
)
def test_the_variable_that_would_send_credentials_unencrypted_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://10.0.0.7:9000")
    url = "az://container/prefix" if name.startswith("AZURE") else "s3://bucket/prefix"
    with pytest.raises(StoreError, match=f"^{name} is 'http://10.0.0.7:9000'.*use https://"):
        open_files(url)
