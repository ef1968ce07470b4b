"""What became of a ranker, for people."""

from __future__ import annotations

from nearline.v1 import snapshot_pb2


def describe_ranker(card: snapshot_pb2.RankerCard) -> str:
    """Says whether a ranker serves, and what it gains; empty: too little to train one on."""
    if not card.validation_users:
        return ""
    gain = (
        f"NDCG {card.blend_ndcg:.4f} -> {card.validation_ndcg:.4f} on validation, "
        f"gain {card.gain_low:.4f} to {card.gain_high:.4f}"
    )
    if not card.kept:
        return f"not kept: {gain}"
    blend = f"{card.blend_weight:g} x blend + " if card.blend_weight else ""
    return f"{blend}{card.weight:g} x {card.trees} trees: {gain}"
