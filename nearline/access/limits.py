"""Limits of tenants and keys: what each may ask for, in a TOML file.

    [default]                # every tenant without a table of its own
    requests_per_s = 100
    concurrent = 32
    k = 1000

    [tenants.shop]           # what it leaves out is as in [default]
    requests_per_s = 1000

    [keys.k7q2mzt4]          # in addition to the limits of its tenant
    requests_per_s = 10

What no table limits is limited by the server alone.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nearline.access.caller import ANONYMOUS, EVERY, Caller
from nearline.errors import InvalidRequest, SettingsError
from nearline.watched_files import WatchedFiles, read_text

STRICT: Final = "strict"
_DEFAULT_PAGE: Final = 100
_Count = Annotated[int, Field(ge=1, le=1 << 53)]


class Limits(BaseModel):
    """Limits of a tenant or a key in one server process; None is no limit but the server's own.

    requests_per_s: Calls per second over time. burst: Calls at once after a pause; the calls of one
        second if None. concurrent: Calls that run at the same time. request_bytes: Size of a
        request, in bytes.
    k, batch, ef_search, nprobe: Of a search: hits, queries, and effort of the index.
    page: Entries of a page of items, snapshots, jobs, results or dead letters; items read by id.
    filter_conditions: Conditions of a filter; each value of `In` counts. exact: Whether searches
        may be exact. comparisons: Comparisons of vectors that a search may take, by an estimate
        before it runs.
    items: Items that a tenant may have in a collection; of no effect for a key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    requests_per_s: Annotated[float, Field(ge=1e-6, allow_inf_nan=False)] | None = None
    burst: _Count | None = None
    concurrent: _Count | None = None
    request_bytes: _Count | None = None
    k: _Count | None = None
    batch: _Count | None = None
    ef_search: _Count | None = None
    nprobe: _Count | None = None
    page: _Count | None = None
    filter_conditions: _Count | None = None
    exact: bool = True
    comparisons: _Count | None = None
    items: _Count | None = None


class LimitTable(BaseModel):
    """The limits of a file; see the module."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    default: Limits = Limits()
    tenants: Mapping[str, Limits] = {}
    keys: Mapping[str, Limits] = {}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a table from TOML. Raises: ValueError: it has another form; says where."""
        content = tomllib.loads(text)
        tenants, default = content.get("tenants"), content.get("default")
        if isinstance(tenants, dict) and isinstance(default, dict):
            for name, own in tenants.items():
                # An operator is bounded only by a table of its own.
                if isinstance(own, dict) and name != EVERY:
                    tenants[name] = default | own
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{where}: {first['msg'].lower()}") from error

    def of_tenant(self, caller: Caller) -> Limits:
        """Returns the limits of the caller's tenant; an operator has those of its own table only.

        Where no credentials are required, everybody is of the tenant "default". A call that a
        service makes on behalf of a caller was limited where the caller called.
        """
        if caller.through_service:
            return NO_LIMITS
        if caller.names_tenants and caller is not ANONYMOUS:
            return self.tenants.get(EVERY, NO_LIMITS)
        return self.tenants.get(caller.tenant, self.default)

    def item_limit(self, caller: Caller) -> tuple[str, int] | None:
        """Returns the most items of the caller's tenant, with whose limit it is; None: no limit.

        It also holds for what a service writes on behalf of a tenant.
        """
        items = self.tenants.get(caller.tenant, self.default).items
        return None if items is None else (f"tenant {caller.tenant!r}", items)

    def of_key(self, caller: Caller) -> Limits:
        """Returns the limits of the caller's key; `NO_LIMITS` if it has none of its own."""
        return NO_LIMITS if caller.through_service else self.keys.get(caller.key, NO_LIMITS)


NO_LIMITS = Limits()
# For a service that strangers reach.
_STRICT_TABLE = LimitTable(
    default=Limits(
        requests_per_s=50.0,
        burst=100,
        concurrent=16,
        request_bytes=1 << 20,
        k=100,
        batch=16,
        ef_search=512,
        nprobe=64,
        page=100,
        filter_conditions=32,
        exact=False,
        comparisons=20_000_000,
        items=100_000,
    )
)


class LimitFile:
    """The limits of a file, read again within a second when it changes.

    A file that cannot be read any more leaves the limits as they were, and is logged.

    Args:
        path: The file; see the module. "strict" stands for Nearline's own strict limits.
        clock: Returns seconds.
    Raises: SettingsError: it cannot be read, or has another form.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._file: WatchedFiles[LimitTable] | None = None
        if path == STRICT:
            return
        try:
            self._file = WatchedFiles(
                [path], lambda: LimitTable.parse(read_text(Path(path))), "limits", clock
            )
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"limits in {path} cannot be read: {error}; correct the file, or name another"
            ) from error

    @property
    def table(self) -> LimitTable:
        """The limits in force."""
        return _STRICT_TABLE if self._file is None else self._file.current()


def page_size(bounds: Sequence[tuple[str, Limits]], requested: int) -> int:
    """Returns the size of a page: the requested one, 100 if that is 0, or less if limits say so.

    Args:
        bounds: Limits that apply, each with whose they are, such as "tenant 'shop'".
        requested: Entries; 0 if the request leaves it to the service.
    """
    allowed = (one.page for _, one in bounds if one.page is not None)
    return min([requested or _DEFAULT_PAGE, *allowed])


def check_limit(whose: str, limits: Limits, name: str, value: int, field: str) -> None:
    """Checks a value of a request against a limit.

    Args:
        whose: Whose limits they are, such as "tenant 'shop'".
        name: A limit that is a number, as in `Limits`.
        field: Field of the request, for errors.
    Raises: InvalidRequest: the value is more than the limit.
    """
    limit: int | None = getattr(limits, name)
    if limit is not None and value > limit:
        raise InvalidRequest(
            f"{field} is {value:,}, and the limit of {whose} is {limit:,} ({name}); ask for less, "
            "or ask the operator for a higher limit",
            field=field,
        )
