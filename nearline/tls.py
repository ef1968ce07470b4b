"""TLS of servers and clients: credentials from files, read again when the files change."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc

from nearline.errors import SettingsError
from nearline.watched_files import WatchedFiles


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files; an empty path means none.

    certificate: The certificate chain that this side shows.
    key: Its private key.
    authorities: Certificates that sign those of the other side.
    """

    certificate: str = ""
    key: str = ""
    authorities: str = ""

    @classmethod
    def of_client(cls, environ: Mapping[str, str]) -> Self:
        """Returns NEARLINE_TLS_CERT, NEARLINE_TLS_KEY and NEARLINE_TLS_CA of an environment."""
        return cls(*(environ.get(f"NEARLINE_TLS_{one}", "") for one in ("CERT", "KEY", "CA")))

    def __bool__(self) -> bool:
        return bool(self.certificate or self.key or self.authorities)


def is_loopback(address: str) -> bool:
    """Returns whether only this machine reaches an address: "host", "host:port" or "unix:…"."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition("/")[2]
    if host.count(":") == 1 or host.startswith("["):
        host = host.rpartition(":")[0] if not host.endswith("]") else host
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        # Any other name may be resolved to anything.
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class TlsContents:
    """Contents of PEM files; None for a file that is not given."""

    certificate: bytes | None
    key: bytes | None
    authorities: bytes | None


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Returns the credentials of a server; each new connection gets the newest certificate.

    gRPC speaks TLS 1.2 and 1.3, with its own list of ciphers, all with forward secrecy.

    Raises: SettingsError: a file is missing, or cannot be used.
    """
    check_files(files)
    if not files.certificate:
        raise SettingsError("TLS needs a certificate and its key: give --tls-cert and --tls-key")
    watched = watch_files(files)

    # The stubs of grpc do not know that None means "as before".
    def fetch() -> Any:
        changed = watched.changed()
        return None if changed is None else _configuration(changed)

    try:
        return grpc.dynamic_ssl_server_credentials(
            _configuration(watched.contents),
            fetch,
            require_client_authentication=bool(files.authorities),
        )
    except (ValueError, RuntimeError) as error:
        raise SettingsError(
            f"{files.certificate} or {files.key} cannot be used ({error}); both must be PEM, "
            "and the key that of the certificate"
        ) from error


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Returns the credentials of a client.

    Args:
        files: Without authorities, those of the system sign the certificate of the server; without
            a certificate, the client shows none.
    Raises: SettingsError: a file is missing, or cannot be used.
    """
    check_files(files)
    found = _read(files)
    return grpc.ssl_channel_credentials(found.authorities, found.key, found.certificate)


def watch_files(files: TlsFiles) -> WatchedFiles[TlsContents]:
    """Returns the contents of files, read again when they change.

    Raises: SettingsError: a file is missing.
    """
    paths = [one for one in (files.certificate, files.key, files.authorities) if one]
    return WatchedFiles(paths, lambda: _read(files), "certificates")


def check_files(files: TlsFiles) -> None:
    """Checks files before gRPC does, which would end the process, or blame the port.

    Raises: SettingsError: they cannot be used.
    """
    if bool(files.certificate) != bool(files.key):
        given, missing = ("certificate", "KEY") if files.certificate else ("key", "CERT")
        raise SettingsError(
            f"TLS has a {given} alone; set NEARLINE_TLS_{missing} (--tls-{missing.lower()}), too"
        )
    _read(files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        if files.certificate:
            context.load_cert_chain(files.certificate, files.key)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"{files.certificate} and {files.key} cannot be used together ({error}); both must be "
            "PEM, and the key that of the certificate"
        ) from error
    try:
        if files.authorities:
            context.load_verify_locations(files.authorities)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"{files.authorities} has no certificates of an authority ({error}); it must be PEM"
        ) from error


def certificate_expiry(file: str) -> float:
    """Returns when the certificate of a server expires, in seconds since 1970.

    Args:
        file: PEM file; the first certificate of a chain is the server's own.
    Raises: OSError, ValueError: it cannot be read now.
    """
    # Imported late: most servers of a private network have no certificate.
    from cryptography import x509

    found = x509.load_pem_x509_certificate(Path(file).read_bytes())
    return found.not_valid_after_utc.timestamp()


def _configuration(contents: TlsContents) -> grpc.ServerCertificateConfiguration:
    pair = contents.key or b"", contents.certificate or b""
    return grpc.ssl_server_certificate_configuration([pair], contents.authorities)


def _read(files: TlsFiles) -> TlsContents:
    found = []
    for name, path in (
        ("--tls-cert", files.certificate),
        ("--tls-key", files.key),
        ("--tls-client-ca or NEARLINE_TLS_CA", files.authorities),
    ):
        try:
            found.append(Path(path).read_bytes() if path else None)
        except OSError as error:
            raise SettingsError(
                f"{name} {path} cannot be read: {error.strerror}; `nearline certs` makes "
                "certificates for tests"
            ) from error
    return TlsContents(*found)
