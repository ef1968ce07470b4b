"""What a build takes from the Redis of a running service, beside the changes of items."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from index_builder.options.build_options import BuildOptions
    from retrieval.changelog.redis_log import RedisLog


async def with_recorded_users(options: BuildOptions, log: RedisLog) -> BuildOptions:
    """Lets a build learn from what was recorded, too, and from nobody who was deleted.

    Raises: NotReady: Redis is away.
    """
    from index_builder.interactions.recorded_interactions import add_recorded

    states = log.user_states()
    options = replace(options, erased=partial(states.deleted, log.collection))
    learning = options.learning
    if learning is None:
        return options
    joined = await add_recorded(
        learning.interactions, states.logged(log.collection), learning.kind_weights
    )
    learning = replace(learning, interactions=joined.interactions, recorded=joined.added)
    return replace(options, learning=learning)
