"""Files of keys and limits for benchmarks with tenants."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nearline.access.api_keys import make_key


def write_keys(path: Path, tenants: Mapping[str, str]) -> dict[str, str]:
    """Writes a key for each tenant, given its right in every collection; returns them by tenant."""
    keys, tables = {}, []
    for tenant, right in tenants.items():
        keys[tenant], key_id, digest = make_key()
        tables.append(
            f"[[key]]\nid = '{key_id}'\nsha256 = '{digest}'\ntenant = '{tenant}'\n"
            f"rights = {{ '*' = '{right}' }}\n"
        )
    path.write_text("\n".join(tables))
    path.chmod(0o600)
    return keys
