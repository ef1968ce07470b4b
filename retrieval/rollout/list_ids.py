"""Names of shown lists: they say which arm of which rollout gave the list."""

from __future__ import annotations

from nearline.contract import Arm

_MARKS = {Arm.CURRENT: "b", Arm.CANARY: "c"}


def mark_list_id(list_id: str, epoch: int, arm: Arm) -> str:
    """Returns the name of a list with the rollout and the arm that it came from."""
    return f"{list_id}.{epoch:x}{_MARKS[arm]}"


def is_from_canary(list_id: str, epoch: int) -> bool | None:
    """Returns whether a list came from the canary of the rollout of an epoch.

    Returns: None: it is of no rollout, or of another one.
    """
    _, dot, mark = list_id.rpartition(".")
    if not dot or mark[:-1] != f"{epoch:x}":
        return None
    return {"b": False, "c": True}.get(mark[-1:])
