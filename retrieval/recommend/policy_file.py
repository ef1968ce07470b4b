"""Reads the policy file, a TOML file whose keys and values are all checked."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from nearline.contract import MAX_EXCLUDED, MAX_K, MAX_KIND_BYTES, MAX_RECOMMENDED
from nearline.errors import InvalidRequest, SettingsError
from nearline.filter_text import parse_filter
from nearline.filters import Filter
from nearline.items.documents import check_id
from retrieval.protocols.request_validation import suggest_names
from retrieval.recommend.policies import (
    HIDE_SEEN,
    ExploreRule,
    FreshRule,
    Origin,
    Policies,
    Policy,
    Quota,
    SeenRule,
    default_policies,
)

MAX_PINNED = 100
MAX_QUOTAS = 16
MAX_DAYS = 36_500
MAX_VERSION = 2**31 - 1
_KINDS: Mapping[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "a table",
}
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


def read_policies(path: Path) -> Policies:
    """Reads a policy file; surfaces that it does not name keep their built-in policies.

    Raises: SettingsError: the file cannot be read, has an unknown key, or a value of a wrong type
        or out of range; names the key, the value and what is allowed.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"policy file {path} cannot be read: {error}; name a readable UTF-8 file, or omit it "
            "to use the built-in policies"
        ) from error
    return parse_policies(text, default_policies(), f"policy file {path}")


def parse_policies(text: str, base: Policies, origin: str = "policies") -> Policies:
    """Reads policies from TOML; surfaces that they do not name keep those of `base`.

    Args:
        text: As in a policy file.
        base: Policies to complete them with.
        origin: What the text is, for errors.
    Raises: SettingsError: as `read_policies`.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"{origin} is not TOML: {error}; see docs/guides/surfaces.md for an example"
        ) from error
    try:
        return base.merged_with(_policies(_Table(content, "")))
    except InvalidRequest as error:
        raise SettingsError(f"{origin}: {error}") from error


class _Table:
    """A table of the file, whose methods return checked values. Raises: InvalidRequest."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise _invalid(path, value, "a table is required")
        self.values: Mapping[str, Any] = value
        self.path = path

    def check_keys(self, known: Collection[str], required: Collection[str] = ()) -> None:
        for key in self.values:
            if key not in known:
                raise InvalidRequest(
                    f"{self.path_of(key)} is unknown; use one of {suggest_names(key, known)}"
                )
        for key in required:
            if key not in self.values:
                raise InvalidRequest(f"{self.path_of(key)} is missing; set it")

    def path_of(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def table(self, key: str) -> _Table:
        return _Table(self.values.get(key, {}), self.path_of(key))

    def integer(self, key: str, least: int, most: int, default: int = 0) -> int:
        value = self.values.get(key, default)
        if type(value) is not int or not least <= value <= most:
            raise _invalid(self.path_of(key), value, f"an integer in {least}..{most} is allowed")
        return value

    def share(self, key: str) -> float:
        value = self.values.get(key, 0.0)
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise _invalid(self.path_of(key), value, "a number in 0..1 is allowed")
        return float(value)

    def choice(self, key: str, allowed: Collection[str]) -> str:
        value: str = self.values.get(key, next(iter(allowed)))
        if value not in allowed:
            raise _invalid(
                self.path_of(key), value, f"{' or '.join(map(repr, allowed))} is allowed"
            )
        return value

    def filter(self, key: str) -> Filter | None:
        text = self.values.get(key)
        if text is None:
            return None
        if not isinstance(text, str):
            raise _invalid(
                self.path_of(key),
                text,
                "a filter is required as a string: see docs/guides/filters.md",
            )
        try:
            return parse_filter(text, references=True)
        except InvalidRequest as error:
            raise InvalidRequest(f"{self.path_of(key)}: {error}") from error

    def texts(self, key: str, most: int, check: Callable[[str], None]) -> tuple[str, ...]:
        values = self.values.get(key, [])
        if not isinstance(values, list):
            raise _invalid(self.path_of(key), values, "a list of strings is required")
        if len(values) > most:
            raise InvalidRequest(
                f"{self.path_of(key)} has {len(values)} entries; at most {most} are allowed"
            )
        earlier: set[str] = set()
        for place, value in enumerate(values):
            if not isinstance(value, str):
                raise _invalid(
                    f"{self.path_of(key)}[{place}]", value, "a string is required: quote it"
                )
            if value in earlier:
                raise _invalid(f"{self.path_of(key)}[{place}]", value, "it is repeated; remove one")
            earlier.add(value)
            try:
                check(value)
            except InvalidRequest as error:
                raise InvalidRequest(f"{self.path_of(key)}[{place}]: {error}") from error
        return tuple(values)


def _policies(file: _Table) -> list[Policy]:
    file.check_keys(("version", "surfaces"), required=("version",))
    version = file.integer("version", 1, MAX_VERSION)
    surfaces = file.table("surfaces")
    for name in surfaces.values:
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"surface name {name!r} is invalid; 1..64 letters, digits, '_', '-' or '.' are "
                "allowed"
            )
    return [_policy(name, version, surfaces.table(name)) for name in surfaces.values]


def _policy(name: str, version: int, table: _Table) -> Policy:
    table.check_keys(
        (
            *("seen", "seen_kinds", "seen_days", "quotas", "pinned", "blocked", "diversity"),
            *("popularity_debias", "fresh", "explore", "candidates", "from", "only"),
        )
    )
    origin = Origin(table.choice("from", [one.value for one in Origin]))
    seen = _seen(table, origin)
    pinned = table.texts("pinned", MAX_PINNED, check_id)
    blocked = table.texts("blocked", MAX_EXCLUDED, check_id)
    for item_id in pinned:
        if item_id in blocked:
            raise _invalid(table.path_of("pinned"), item_id, "it is blocked, too; remove one")
    candidates = table.integer("candidates", 1, MAX_K, default=200)
    return Policy(
        name=name,
        version=version,
        origin=origin,
        only=table.filter("only"),
        seen=seen,
        quotas=_quotas(table.table("quotas")),
        pinned=pinned,
        blocked=frozenset(blocked),
        diversity=table.share("diversity"),
        popularity_debias=_debias(table, origin),
        fresh=_fresh(table.table("fresh")) if "fresh" in table.values else None,
        explore=_explore(table.table("explore"), candidates) if "explore" in table.values else None,
        candidates=candidates,
    )


def _seen(table: _Table, origin: Origin) -> SeenRule:
    buys_again = origin is Origin.BUY_AGAIN
    limited = "seen_kinds" in table.values or "seen_days" in table.values
    # The first is the default.
    choices = ("exclude", "repeat") if limited else ("auto", "exclude", "repeat")
    seen = table.choice("seen", ("repeat", "exclude") if buys_again and not limited else choices)
    rule = SeenRule(
        repeat=seen == "repeat",
        by_item=seen == "auto",
        kinds=frozenset(table.texts("seen_kinds", 64, _check_kind)),
        days=table.integer("seen_days", 0, MAX_DAYS),
    )
    if buys_again and rule == HIDE_SEEN:
        raise _invalid(
            table.path_of("seen"),
            "exclude",
            "buy_again lists items that the user had, and this hides all of them; omit `seen`, or "
            "also set seen_days or seen_kinds",
        )
    return rule


def _debias(table: _Table, origin: Origin) -> float | None:
    key = "popularity_debias"
    if key not in table.values:
        return None
    value = table.share(key)
    if origin is not Origin.AUTO:
        raise _invalid(
            table.path_of(key),
            table.values[key],
            f'lists from "{origin.value}" are not discounted; omit it, or omit `from`',
        )
    return value


def _quotas(table: _Table) -> tuple[Quota, ...]:
    if len(table.values) > MAX_QUOTAS:
        raise InvalidRequest(
            f"{table.path} has {len(table.values)} attributes; at most {MAX_QUOTAS} are allowed"
        )
    for name, value in table.values.items():
        if isinstance(value, dict):
            raise _invalid(
                table.path_of(name),
                value,
                f"quote a name with dots: {{ {_example(name, value)} = 2 }}",
            )
    return tuple(
        Quota(name, table.integer(name, 1, MAX_RECOMMENDED)) for name in sorted(table.values)
    )


def _fresh(table: _Table) -> FreshRule:
    keys = ("attribute", "days", "places")
    table.check_keys(keys, required=keys)
    attribute = table.values["attribute"]
    if not isinstance(attribute, str) or not attribute:
        raise _invalid(
            table.path_of("attribute"), attribute, "the name of an attribute is required"
        )
    return FreshRule(
        attribute, table.integer("days", 1, MAX_DAYS), table.integer("places", 1, MAX_RECOMMENDED)
    )


def _explore(table: _Table, candidates: int) -> ExploreRule:
    keys = ("places", "pool")
    table.check_keys(keys, required=keys)
    places = table.integer("places", 1, MAX_RECOMMENDED)
    pool = table.integer("pool", 1, MAX_K)
    if not places <= pool <= candidates:
        raise _invalid(
            table.path_of("pool"),
            pool,
            f"{places}..{candidates} is allowed: from places to the candidates of the surface",
        )
    return ExploreRule(places, pool)


def _check_kind(kind: str) -> None:
    size = len(kind.encode())
    if not 1 <= size <= MAX_KIND_BYTES:
        raise InvalidRequest(f"the kind {kind!r} has {size} bytes; 1..{MAX_KIND_BYTES} are allowed")


def _example(name: str, value: Mapping[str, object]) -> str:
    return f'"{name}.{next(iter(value), "name")}"'


def _invalid(path: str, value: object, remedy: str) -> InvalidRequest:
    kind = _KINDS.get(type(value), "a date or time")
    return InvalidRequest(f"{path} is {kind}, {value!r}; {remedy}")
