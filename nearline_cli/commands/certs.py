"""`nearline certs`: makes a development certificate authority and certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nearline_cli.local.certificates import CertificateAuthority
from nearline_cli.terminal import output


def certs(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the authority is, or is to be made.")
    ],
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the certificate and of its files.")
    ] = "nearline",
    host: Annotated[
        list[str],
        typer.Option("--host", metavar="HOST", help="Name or address of the server. Repeat it."),
    ] = ["localhost", "127.0.0.1", "::1"],  # noqa: B006
    days: Annotated[int, typer.Option(min=1, max=825, help="Days for which it is valid.")] = 90,
    as_json: output.JsonFlag = False,
) -> None:
    """Make a certificate for a server or a client, and at first the authority that signs it.

    For development and tests: the key of the authority lies unencrypted in the folder.
    """
    authority = CertificateAuthority(folder)
    certificate, key = authority.issue(name, host, days)
    text = (
        f"servers: --tls-cert {certificate} --tls-key {key}\n"
        f"clients: NEARLINE_TLS_CA={authority.file}\n"
        f"clients too, if servers have --tls-client-ca {authority.file}: "
        f"NEARLINE_TLS_CERT={certificate} NEARLINE_TLS_KEY={key}"
    )
    record = {"authority": str(authority.file), "certificate": str(certificate), "key": str(key)}
    output.print_result(record, text, as_json=as_json)
