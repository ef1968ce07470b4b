"""The cost of embedding: an encoder such as MiniLM on GPUs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nearline_cli.sizing.cards import Card


def layer_parameters(layers: int, width: int) -> int:
    """Returns the weights of the layers of an encoder, without embeddings, biases and norms.

    Source: BERT (Devlin et al., 2019): four projections of width x width, and a feed-forward
    network of 4 x width, so 12 x width x width for each layer. MiniLM-L6, 6 x 384: 10.6 million.
    """
    return 12 * layers * width * width


def flop_per_token(layers: int, width: int, tokens: float) -> float:
    """Returns the operations for each token of a text with this many tokens.

    Source: Kaplan et al., "Scaling Laws for Neural Language Models" (2020), table 1: two for each
    weight. Attention adds 4 x tokens x width for each layer: scores and weighted sums, each two for
    each of the other tokens. MiniLM-L6: 21.2 million, and 9,216 for each token of the text.
    """
    return 2 * layer_parameters(layers, width) + 4 * layers * width * tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPlan:
    """The cost of embedding.

    flop_per_token: Operations. texts_per_s: Of one card. cards: For the rate.
    """

    flop_per_token: float
    texts_per_s: float
    cards: int


def plan_encoder(
    card: Card, *, texts: float, tokens: float, layers: int, width: int, load: float
) -> EncoderPlan:
    """Returns what embedding takes, without tokenizing, which the CPU does.

    Source: roofline model (Williams, Waterman and Patterson, 2009): large batches are bound by
    arithmetic, so texts/s = FLOP/s / (tokens x FLOP per token).

    Args:
        card: The card, with the operations that it really reaches.
        texts: Per second.
        tokens: Of a text, padding included.
        load: Share of the rate that is planned for, in (0, 1].
    """
    needed = flop_per_token(layers, width, tokens)
    rate = card.flops / (tokens * needed)
    return EncoderPlan(
        flop_per_token=needed,
        texts_per_s=rate,
        cards=max(1, math.ceil(texts / (load * rate))),
    )
