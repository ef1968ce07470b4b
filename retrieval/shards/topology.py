"""Parses the addresses of services: the topology of shard servers, and plain lists."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nearline.errors import SettingsError
from nearline.store.snapshot import PARTITIONS

_EXAMPLE = '"0=host:port,host:port;1=host:port"'
_ADDRESS = re.compile(r"(?:dns:(?://[^/]*/)?)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


def parse_topology(text: str) -> dict[int, tuple[str, ...]]:
    """Parses the --shards setting.

    "0=a:7001,b:7001;1=a:7002" -> {0: ("a:7001", "b:7001"), 1: ("a:7002",)}
    Raises: SettingsError: not of that form, an invalid address, a repeated shard, or a missing
        shard.
    """
    shards: dict[int, tuple[str, ...]] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        head, separator, tail = part.partition("=")
        number = head.strip()
        if not separator or not number.isascii() or not number.isdigit():
            raise SettingsError(f"--shards: {part!r} is not of the form {_EXAMPLE}")
        if int(number) >= PARTITIONS:
            raise SettingsError(f"--shards: shard {number} is not in 0..{PARTITIONS - 1}")
        if int(number) in shards:
            raise SettingsError(
                f"--shards: shard {number} appears twice; list its addresses together: {_EXAMPLE}"
            )
        addresses = tuple(address.strip() for address in tail.split(","))
        for address in addresses:
            check_address(address, "--shards")
        shards[int(number)] = addresses
    if not shards:
        raise SettingsError(f"--shards is empty; write {_EXAMPLE}, or omit it")
    missing = sorted(set(range(max(shards))) - set(shards))
    if missing:
        raise SettingsError(
            f"--shards names shard {max(shards)} but not {', '.join(map(str, missing))}; "
            "shards are numbered from 0 without gaps"
        )
    return dict(sorted(shards.items()))


def parse_addresses(text: str, setting: str) -> list[str]:
    """Parses a comma-separated list of addresses.

    "a:7001, b:7001" -> ["a:7001", "b:7001"]
    Raises: SettingsError: an address is not host:port.
    """
    return [check_address(part.strip(), setting) for part in text.split(",") if part.strip()]


def check_address(address: str, setting: str) -> str:
    """Returns the address, or raises SettingsError if it is not host:port."""
    match = _ADDRESS.fullmatch(address)
    if match is None or not 1 <= int(match[1]) <= 65_535:
        raise SettingsError(
            f"{setting}: {address!r} is not an address; write host:port, port 1..65535"
        )
    return address


def replica_groups(topology: Mapping[int, Sequence[str]], count: int) -> list[dict[str, set[int]]]:
    """Returns the replica groups: by address, the shards that each server holds.

    Group n consists of the n-th address of each shard. An address in several groups belongs to the
    first.

    {0: ("a", "b"), 1: ("a", "c")}, 2 -> [{"a": {0, 1}}, {"b": {0}, "c": {1}}]

    Args:
        topology: Addresses by shard number.
        count: Number of shards to consider, 1..len(topology).
    """
    groups: list[dict[str, set[int]]] = []
    seen: dict[str, set[int]] = {}
    for place in range(max(map(len, topology.values()))):
        group: dict[str, set[int]] = {}
        for number in range(count):
            if place < len(topology[number]):
                address = topology[number][place]
                if address not in seen:
                    seen[address] = group[address] = set()
                seen[address].add(number)
        groups.append(group)
    return groups
