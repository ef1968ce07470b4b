"""A training reads the attributes that users have when it begins, not those of deleted users."""

from __future__ import annotations

from pathlib import Path

import pytest

from index_builder.interactions.merge import NO_INTERACTIONS
from index_builder.options.build_options import BuildOptions
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.training_data import with_recorded_users
from retrieval.users.states import UserStates
from tests.redis_server import needs_redis
from tests.retrieval.users.conftest import give_opened, give_shared_redis, give_states
from tests.retrieval.users.interactions import seen

__all__ = ["give_opened", "give_shared_redis", "give_states"]  # Fixtures.


@pytest.mark.service
@needs_redis
async def test_deleted_users_have_no_attributes(states: UserStates, tmp_path: Path) -> None:
    users = [f"u{at:04}" for at in range(1_200)]  # More than one page of them.
    await states.record("c", [seen("a", 1, one) for one in users[:1_000]])
    await states.record("c", [seen("a", 1, one) for one in users[1_000:]])
    for one in users[::100]:
        await states.set_attributes("c", one, {"country": "DE", "age": int(one[1:])})
    plain = BuildOptions(
        store=str(tmp_path),
        collection="c",
        training=TrainingOptions(interactions=NO_INTERACTIONS),
    )
    options = await with_recorded_users(plain, states)
    assert options.training is not None and options.user_attributes is not None
    assert set(options.training.interactions.users) == set(users)
    found = await options.user_attributes(users)
    assert found == {one: {"country": "DE", "age": int(one[1:])} for one in users[::100]}
    await states.delete("c", "u0300")
    assert (await options.user_attributes(users)).keys() == found.keys() - {"u0300"}
    # Without Redis, nothing is known, and nothing fails.
    assert (await with_recorded_users(plain, None)).user_attributes is None
