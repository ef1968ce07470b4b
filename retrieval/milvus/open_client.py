"""Opens a Milvus, where its client is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearline.errors import SettingsError

if TYPE_CHECKING:
    from retrieval.milvus.client import MilvusClient

_SCHEMES = ("http://", "https://")


def open_client(uri: str, token: str = "") -> MilvusClient:
    """Returns a client; it connects when it is first asked.

    Args:
        uri: http://host:port, https://host:port, or a file that ends in .db for Milvus Lite.
        token: "user:password" or an API key; empty: none.
    Raises: SettingsError: the client is not installed, or not such an address.
    """
    if not uri.startswith(_SCHEMES) and not uri.endswith(".db"):
        raise SettingsError(
            f"--milvus-uri is {uri!r}; give http://HOST:PORT, https://HOST:PORT, or a file that "
            "ends in .db for Milvus Lite"
        )
    try:
        # Imported late: only those have it who want Milvus.
        from retrieval.milvus.client import MilvusClient
    except ImportError as error:
        raise SettingsError(
            f"Milvus needs a library that is not installed ({error.name}): run pip install "
            "'nearline[milvus]'"
        ) from error
    return MilvusClient(uri, token)
