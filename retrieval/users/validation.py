"""Validates interactions; errors name the field at fault."""

from __future__ import annotations

from collections.abc import Sequence

from nearline.access.tenant_ids import name_of
from nearline.contract import MAX_KEY_BYTES
from nearline.contract.recommendations import MAX_EVENT_ID_BYTES, MAX_KIND_BYTES, Interaction
from nearline.contract.writes import MAX_ID_BYTES
from nearline.errors import InvalidRequest
from nearline.items.documents import check_text_bytes
from nearline.times import from_us, to_us
from nearline.wire.limits import BATCH, LIMITS, check_count, check_range

MAX_AHEAD_US = 3_600_000_000
LEAST_WEIGHT, MOST_WEIGHT, _ = LIMITS["Interaction.weight"]


def check_interactions(
    interactions: Sequence[Interaction], idempotency_key: str, now_us: int
) -> None:
    """Checks a request to record interactions.

    Raises: InvalidRequest: there are none or too many, or one is invalid; names the field.
    """
    check_count(len(interactions), "interactions", BATCH)
    check_text_bytes(idempotency_key, "idempotency_key", MAX_KEY_BYTES)
    for number, interaction in enumerate(interactions):
        _check(interaction, now_us, f"interactions[{number}]")


def check_owner_id(owner_id: str, field: str) -> None:
    """Checks the id of a user or a session. Raises: InvalidRequest."""
    check_text_bytes(name_of(owner_id), field, MAX_ID_BYTES, 1)


def _check(interaction: Interaction, now_us: int, path: str) -> None:
    check_text_bytes(interaction.item_id, f"{path}.item_id", MAX_ID_BYTES, 1)
    if not interaction.user_id and not interaction.session_id:
        raise InvalidRequest(
            f"{path} has neither user_id nor session_id; name at least one of them",
            field=f"{path}.user_id",
        )
    check_text_bytes(name_of(interaction.user_id), f"{path}.user_id", MAX_ID_BYTES)
    check_text_bytes(name_of(interaction.session_id), f"{path}.session_id", MAX_ID_BYTES)
    check_text_bytes(interaction.kind, f"{path}.kind", MAX_KIND_BYTES, 1)
    check_text_bytes(interaction.event_id, f"{path}.event_id", MAX_EVENT_ID_BYTES)
    check_text_bytes(interaction.list_id, f"{path}.list_id", MAX_ID_BYTES)
    weight, position = interaction.weight, interaction.position
    if weight is not None:
        remedy = "omit it to use the weight of the kind"
        check_range(weight, f"{path}.weight", LIMITS["Interaction.weight"], remedy)
    if position is not None and (position < 0 or not interaction.list_id):
        raise InvalidRequest(
            f"{path}.position is {position} with list_id {interaction.list_id!r}; a position must "
            "be 0 or more, and needs a list_id",
            field=f"{path}.position",
        )
    _check_time(interaction, now_us, f"{path}.time")


def _check_time(interaction: Interaction, now_us: int, field: str) -> None:
    time = interaction.time
    if time is None:
        return
    if time.tzinfo is None:
        raise InvalidRequest(
            f"{field} is {time.isoformat()}, without a time zone; send an aware time, such as UTC",
            field=field,
        )
    if not 0 <= to_us(time) <= now_us + MAX_AHEAD_US:
        raise InvalidRequest(
            f"{field} is {time.isoformat()}; send a time from 1970 to an hour from now, "
            f"{from_us(now_us + MAX_AHEAD_US).isoformat()}",
            field=field,
        )
