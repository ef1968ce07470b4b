"""Options that several commands share, with their defaults."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nearline.contract import DEFAULT_COLLECTION as DEFAULT_COLLECTION
from nearline.durations import Duration
from nearline.errors import InvalidRequest
from nearline_cli.terminal import durations

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7700
DEFAULT_ADDRESS = f"{DEFAULT_HOST}:{DEFAULT_PORT}"
# Other targets that gRPC resolves.
_TARGETS = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "xds:")
_LAST_PORT = 65_535
DEFAULT_STORE = ".nearline/store"
DEFAULT_TIMEOUT = Duration(10)
LONG_TIMEOUT = Duration(60)


class Backend(StrEnum):
    """Search backend."""

    FAISS = "faiss"
    MILVUS = "milvus"


StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="NEARLINE_STORE",
        metavar="DIR|URL",
        help="Store of the snapshots: a folder, s3://, gs:// or az://.",
    ),
]
CollectionOption = Annotated[
    str,
    typer.Option(
        "--collection",
        "-c",
        envvar="NEARLINE_COLLECTION",
        metavar="NAME",
        help="Name of the collection.",
    ),
]
SearchWeightOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=WEIGHT",
        help="How much a word of a field counts in keyword search: title, text, or an attribute of "
        "texts, which is not searched otherwise; for example title=2. Repeatable. "
        "\\[default: 1 for title and text]",
    ),
]
SearchLanguageOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=LANGUAGE",
        help="Language of an attribute with a search weight whose words are not those of "
        "--language; for example brand=none for words as they are written. Repeatable. "
        "\\[default: that of the collection]",
    ),
]
SynonymsOption = Annotated[
    Path | None,
    typer.Option(
        "--synonyms",
        metavar="FILE",
        help="File of synonyms for words of queries: a line is tv, television for words that stand "
        "for one another, or nyc => new york city for one way. \\[default: none]",
    ),
]
OnlyCollectionOption = Annotated[
    str, typer.Option("--collection", "-c", metavar="NAME", help="Only this collection.")
]


def read_address(value: str) -> str:
    """Returns an address that gRPC can resolve.

    Raises: InvalidRequest: it is not HOST:PORT, nor another target of gRPC such as dns:///name:1.
    """
    host, _, port = value.rpartition(":")
    if value.startswith(_TARGETS) or (
        host and "/" not in host and port.isdecimal() and 0 < int(port) <= _LAST_PORT
    ):
        return value
    http = "; that of HTTP is for browsers and curl" if value.startswith("http") else ""
    raise InvalidRequest(
        f"--address is {value!r}; give HOST:PORT, such as {DEFAULT_ADDRESS}{http}", field="address"
    )


AddressOption = Annotated[
    str,
    typer.Option(
        "--address",
        parser=read_address,
        envvar="NEARLINE_ADDRESS",
        metavar="HOST:PORT",
        help="Address of the router, which passes on the calls of other services.",
    ),
]
TokenOption = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="NEARLINE_TOKEN",
        metavar="TOKEN",
        help="Token that identifies you, if the service requires one.",
    ),
]
EmbeddingOption = Annotated[
    str,
    typer.Option(metavar="HOST:PORT", help="Embedding service. \\[default: a service is started]"),
]
EmbeddingsOption = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT,…",
        help="Embedding services of one model, which share the work. \\[default: a service is "
        "started]",
    ),
]
WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="Reason, for the record.")]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout",
        parser=durations.read_timeout,
        metavar=durations.METAVAR,
        help="Timeout of a request.",
    ),
]
IdColumnOption = Annotated[
    str, typer.Option(metavar="NAME", help="Column of the ids. \\[default: _id or id]")
]
TitleColumnOption = Annotated[
    str, typer.Option(metavar="NAME", help="Column of the titles. \\[default: title]")
]
TextColumnOption = Annotated[
    str, typer.Option(metavar="NAME", help="Column of the texts. \\[default: text]")
]
VectorColumnOption = Annotated[
    str, typer.Option(metavar="NAME", help="Column of your own vectors.")
]
FilterOption = Annotated[
    str,
    typer.Option(
        "--filter",
        metavar="FILTER",
        help="Only items that match, for example: kind = class AND (year >= 2000 OR NOT tags IN "
        "\\[a, b]) AND author EXISTS.",
    ),
]
TrainRerankerOption = Annotated[
    float,
    typer.Option(
        metavar="MINUTES",
        min=0.0,
        max=1_440.0,
        help="Train a reranker on the judgements of --tune-on, for at most so many minutes. It "
        "reads the best hits of each search and orders them again. 0: none. Needs the extra torch.",
    ),
]
RerankOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Best hits that the reranker of the snapshot reads and orders again, 0..100; 0: none. "
        "\\[default: as many as the snapshot says]",
    ),
]
