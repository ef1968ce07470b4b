"""`nearline snapshots proposals`: what upkeep built after drift or age, and what became of it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

from nearline.store.snapshot import Store
from nearline_cli.terminal import options, output


def proposals(
    store: options.StoreOption = options.DEFAULT_STORE,
    collection: options.OnlyCollectionOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """List the snapshots that upkeep proposes, newest first.

    An open one passed the release gate. Try it on a share of the requests (nearline rollout start
    ID), or serve it at once (nearline snapshots promote ID).
    """
    from retrieval.snapshots.proposals import read_proposals

    opened = Store.open(store)
    rows = [
        {"collection": name, **asdict(one), "proposed": _written(one.time_s)}
        for name in ([collection] if collection else opened.collections())
        for one in read_proposals(opened, name)
    ]
    if as_json:
        for row in rows:
            output.print_json(row)
        return
    columns = ("collection", "snapshot_id", "state", "proposed", "reason", "why")
    if rows:
        output.print_table(columns, [[row[name] for name in columns] for row in rows])
    else:
        output.print_note("upkeep proposes no snapshot; see docs/guides/releases.md, Proposals")


def _written(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")
