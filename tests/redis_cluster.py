"""Fixtures of a Redis Cluster, as tests start it: bundled servers on free loopback ports."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.local_cluster import LocalCluster, local_cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="primaries")
async def give_primaries() -> AsyncIterator[LocalCluster]:
    """Returns a cluster of three primaries that the tests of a module share."""
    async with local_cluster() as cluster:
        yield cluster


@pytest_asyncio.fixture(name="replicated")
async def give_replicated() -> AsyncIterator[LocalCluster]:
    """Returns a cluster of three primaries, each with a replica."""
    async with local_cluster(replicas=True) as cluster:
        yield cluster
