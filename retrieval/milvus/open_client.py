"""Opens a Milvus client if pymilvus is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearline.errors import SettingsError

if TYPE_CHECKING:
    from retrieval.milvus.client import MilvusClient

_SCHEMES = ("http://", "https://")


def open_client(uri: str, token: str = "") -> MilvusClient:
    """Returns a client, which connects on its first call.

    Args:
        uri: http://host:port, https://host:port, or a file that ends in .db for Milvus Lite.
        token: "user:password" or an API key; empty for no authentication.
    Raises: SettingsError: pymilvus is not installed, or the address is invalid.
    """
    if not uri.startswith(_SCHEMES) and not uri.endswith(".db"):
        raise SettingsError(
            f"--milvus-uri is {uri!r}; use http://HOST:PORT, https://HOST:PORT, or a file that "
            "ends in .db for Milvus Lite"
        )
    try:
        # Imported late: pymilvus is an optional dependency.
        from retrieval.milvus.client import MilvusClient
    except ImportError as error:
        raise SettingsError(
            f"Milvus needs a library that is not installed ({error.name}); run pip install "
            "'nearline-server[milvus]'"
        ) from error
    return MilvusClient(uri, token)
