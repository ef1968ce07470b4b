"""An empty Redis for each test."""

from tests.redis_server import give_shared_redis
from tests.retrieval.live.conftest import give_empty_redis

__all__ = ["give_empty_redis", "give_shared_redis"]
