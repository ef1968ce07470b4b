"""User states over an empty Redis, whose interactions are followed."""

from __future__ import annotations

from tests.redis_server import give_shared_redis
from tests.retrieval.users.conftest import give_opened, give_patient_reads, give_states

__all__ = ["give_opened", "give_patient_reads", "give_shared_redis", "give_states"]  # Fixtures.
