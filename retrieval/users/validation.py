"""Interactions as users send them: what can be none is refused with the field at fault."""

from __future__ import annotations

from collections.abc import Sequence

from nearline.contract import MAX_BATCH, MAX_KEY_BYTES
from nearline.contract.recommendations import MAX_EVENT_ID_BYTES, MAX_KIND_BYTES, Interaction
from nearline.contract.writes import MAX_ID_BYTES
from nearline.errors import InvalidRequest
from nearline.times import from_us, to_us

MAX_AHEAD_US = 3_600_000_000
# What float32 holds with all its digits.
_LEAST_WEIGHT, _MOST_WEIGHT = 1e-30, 1e30


def check_interactions(
    interactions: Sequence[Interaction], idempotency_key: str, now_us: int
) -> None:
    """Checks a request to record interactions.

    Raises: InvalidRequest: none or too many of them, or one out of range; names the field.
    """
    if not 1 <= len(interactions) <= MAX_BATCH:
        raise InvalidRequest(
            f"interactions has {len(interactions)} of them; 1..{MAX_BATCH} are allowed",
            field="interactions",
        )
    _check_text(idempotency_key, MAX_KEY_BYTES, "idempotency_key")
    for number, interaction in enumerate(interactions):
        _check(interaction, now_us, f"interactions[{number}]")


def check_owner_id(owner_id: str, field: str) -> None:
    """Checks the id of a user or a session. Raises: InvalidRequest."""
    _check_text(owner_id, MAX_ID_BYTES, field, 1)


def _check(interaction: Interaction, now_us: int, path: str) -> None:
    _check_text(interaction.item_id, MAX_ID_BYTES, f"{path}.item_id", 1)
    if not interaction.user_id and not interaction.session_id:
        raise InvalidRequest(
            f"{path} has neither user_id nor session_id; name at least one of them",
            field=f"{path}.user_id",
        )
    _check_text(interaction.user_id, MAX_ID_BYTES, f"{path}.user_id")
    _check_text(interaction.session_id, MAX_ID_BYTES, f"{path}.session_id")
    _check_text(interaction.kind, MAX_KIND_BYTES, f"{path}.kind", 1)
    _check_text(interaction.event_id, MAX_EVENT_ID_BYTES, f"{path}.event_id")
    _check_text(interaction.list_id, MAX_ID_BYTES, f"{path}.list_id")
    weight, position = interaction.weight, interaction.position
    if weight is not None and not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT:
        raise InvalidRequest(
            f"{path}.weight is {weight}; {_LEAST_WEIGHT}..{_MOST_WEIGHT} are allowed, or leave it "
            "out for the weight of the kind",
            field=f"{path}.weight",
        )
    if position is not None and (position < 0 or not interaction.list_id):
        raise InvalidRequest(
            f"{path}.position is {position} with list_id {interaction.list_id!r}; a position is 0 "
            "or more, in a list that is named",
            field=f"{path}.position",
        )
    _check_time(interaction, now_us, f"{path}.time")


def _check_time(interaction: Interaction, now_us: int, field: str) -> None:
    time = interaction.time
    if time is None:
        return
    if time.tzinfo is None:
        raise InvalidRequest(
            f"{field} is {time.isoformat()}, without a zone; give an aware time, for example UTC",
            field=field,
        )
    if not 0 <= to_us(time) <= now_us + MAX_AHEAD_US:
        raise InvalidRequest(
            f"{field} is {time.isoformat()}; give one from 1970 to an hour from now, "
            f"{from_us(now_us + MAX_AHEAD_US).isoformat()}",
            field=field,
        )


def _check_text(text: str, most: int, field: str, least: int = 0) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{field} holds half a surrogate pair and is not valid Unicode; send whole characters",
            field=field,
        ) from error
    if not least <= size <= most:
        raise InvalidRequest(f"{field} has {size} bytes; {least}..{most} are allowed", field=field)
