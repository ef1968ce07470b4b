"""A router over Milvus, as a command starts it."""

from __future__ import annotations

from nearline_cli.compose.milvus_target import MilvusTarget
from retrieval.settings import RouterSettings


def test_the_credentials_of_milvus_are_in_no_argument() -> None:
    target = MilvusTarget("http://milvus:19530", "root:secret")
    assert "secret" not in " ".join(target.router)
    names = (one.removeprefix("--").replace("-", "_") for one in target.router[::2])
    arguments = dict(zip(names, target.router[1::2], strict=True))
    settings = RouterSettings.load({**arguments, "store": "s"}, target.environ)
    assert (settings.milvus_uri, settings.milvus_token) == (target.uri, target.token)
