"""Encodes generators in manifests: by model, settings and the table that they read."""

from __future__ import annotations

import math
import re

from nearline.v1 import snapshot_pb2
from retrieval.behaviour.blend import Generator
from retrieval.behaviour.factors import FactorGenerator
from retrieval.behaviour.history import Recency
from retrieval.behaviour.item_lists import ListGenerator
from retrieval.behaviour.popularity import BuyAgainGenerator, PopularityGenerator
from retrieval.behaviour.sequences import SEQUENCE, SequenceGenerator
from retrieval.behaviour.shard_tables import ShardTables

# More events than any history has.
ALL_EVENTS = 1_000_000


def encode_generator(generator: Generator) -> snapshot_pb2.BlendPart:
    """Returns how a generator reads its table; model, settings, weight and table stay unset."""
    part = snapshot_pb2.BlendPart()
    if isinstance(generator, ListGenerator | FactorGenerator | BuyAgainGenerator):
        recency = generator.recency
        part.tau = recency.tau if math.isfinite(recency.tau) else 0
        part.floor = recency.floor
        part.days = recency.days if math.isfinite(recency.days) else 0
    if isinstance(generator, ListGenerator | FactorGenerator):
        part.newest = generator.newest if generator.newest < ALL_EVENTS else 0
    if isinstance(generator, BuyAgainGenerator):
        part.popularity = generator.popularity
    return part


def build_generator(part: snapshot_pb2.BlendPart, tables: ShardTables) -> Generator:
    """Returns the generator that `encode_generator` encoded, over the table that the part names."""
    recency = Recency(part.tau or math.inf, part.floor, part.days or math.inf)
    newest = part.newest or ALL_EVENTS
    if part.model == "popular":
        return PopularityGenerator(tables.scores[part.table])
    if part.model == "buy_again":
        return BuyAgainGenerator(tables.scores[part.table], recency, part.popularity)
    if part.model == "als":
        return FactorGenerator(tables.factors, recency, newest)
    if part.model == SEQUENCE:
        assert tables.sequences is not None, "read with every card that names it"
        return SequenceGenerator(tables.sequences)
    return ListGenerator(tables.lists[part.table], recency, newest)


def source_name(model: str, settings: str) -> str:
    """Returns a name of letters, digits, "_" and "." for a model with settings."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", f"{model}_{settings}")
