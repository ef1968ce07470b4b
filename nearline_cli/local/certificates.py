"""Makes a certificate authority and certificates for development and tests."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nearline.errors import InvalidRequest, SettingsError
from nearline.store.durable import write_durably

AUTHORITY: Final = "ca"
# Certificates of a moment ago must be valid where clocks differ.
_SKEW = timedelta(minutes=5)


class CertificateAuthority:
    """A certificate authority in a folder: `ca.pem` and `ca.key`; made if it is not there.

    Not for production: its key lies unencrypted beside what it signs.

    Args:
        folder: Where everything goes; made if it does not exist.
        days: How long the authority is valid.
    Raises: SettingsError: the folder cannot be written, or what is in it cannot be read.
    """

    def __init__(self, folder: Path, days: int = 3_650) -> None:
        try:
            self._open(folder, days)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"there can be no certificate authority in {folder} ({error}); choose another "
                "folder, or remove its ca.pem and ca.key to begin anew"
            ) from error

    def _open(self, folder: Path, days: int) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.file = folder / f"{AUTHORITY}.pem"
        key_file = folder / f"{AUTHORITY}.key"
        if self.file.exists() and key_file.exists():
            key = serialization.load_pem_private_key(key_file.read_bytes(), None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            self._key = key
            self._certificate = x509.load_pem_x509_certificate(self.file.read_bytes())
            return
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Nearline development CA")
        self._certificate = (
            _builder(name, name, self._key, days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        write_durably(
            self.file, self._certificate.public_bytes(serialization.Encoding.PEM), mode=0o600
        )
        _write_key(key_file, self._key)

    def issue(self, name: str, hosts: Sequence[str], days: int = 90) -> tuple[Path, Path]:
        """Issues a certificate for a server or a client, replacing any of that name.

        Args:
            name: Name of the files, and common name.
            hosts: Names and addresses by which clients reach the server.
            days: How long it is valid.
        Returns: The files of the certificate and of its key.
        Raises: InvalidRequest: the name is that of the authority, or not one of a file.
        """
        if not (hosts and all(re.fullmatch(r"[\w.:*-]+", host) for host in hosts)):
            raise InvalidRequest(f"hosts {list(hosts)} are not all names or addresses")
        if name == AUTHORITY or not name or "/" in name or name.startswith("."):
            raise InvalidRequest(f"{name!r} cannot be the name of a certificate; choose another")
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(name), self._certificate.subject, key, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([_general_name(host) for host in hosts]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        certificate_file, key_file = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        data = certificate.public_bytes(serialization.Encoding.PEM)
        try:
            _write_key(key_file, key)
            write_durably(certificate_file, data, mode=0o600)
        except OSError as error:
            raise SettingsError(
                f"{certificate_file} cannot be written: {error.strerror}"
            ) from error
        return certificate_file, key_file


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    data = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_durably(path, data, mode=0o600)
