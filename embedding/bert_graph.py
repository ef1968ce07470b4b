"""A BERT-like encoder as an OpenVINO graph, from its weights alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedding.bert_weights import BertLayer, BertWeights, Linear, Norm
from embedding.model import PoolingMode
from embedding.openvino_backend import op, ov

# Smallest length that a vector is divided by; such vectors do not occur.
_SMALLEST_NORM = 1e-12


def build_graph(weights: BertWeights) -> ov.Model:
    """Returns the graph from `input_ids` and `attention_mask` to unit vectors.

    Its inputs are (n, length) int64, its output is (n, hidden) float32.
    """
    return _GraphBuilder(weights).build()


def build_scoring_graph(weights: BertWeights, head: Linear) -> ov.Model:
    """Returns the graph from `input_ids` and `attention_mask` to scores.

    Args:
        weights: The encoder.
        head: Applied to the state of the first token.
    Returns: Its inputs are (n, length) int64, its output is (n, outputs of the head) float32.
    """
    return _GraphBuilder(weights).build_scorer(head)


class _GraphBuilder:
    def __init__(self, weights: BertWeights) -> None:
        self._weights = weights
        self._hidden = weights.words.shape[1]

    def build(self) -> ov.Model:
        ids, mask = _inputs()
        output = op.normalize_l2(
            self._pool(self._encode(ids, mask), mask),
            _whole([1]),
            eps=_SMALLEST_NORM,
            eps_mode="max",
        )
        return ov.Model([output], [ids, mask], "bert")

    def build_scorer(self, head: Linear) -> ov.Model:
        ids, mask = _inputs()
        first = op.gather(self._encode(ids, mask, first_only=True), _whole(0), _whole(1))
        return ov.Model([_apply(head, first)], [ids, mask], "bert")

    def _encode(self, ids: ov.Node, mask: ov.Node, *, first_only: bool = False) -> ov.Node:
        """Returns the states of all tokens, or of the first, which spares most of a layer."""
        weights = self._weights
        # Every token of the only segment gets the same vector, whatever its position.
        positions = weights.positions + weights.token_type
        states = op.add(_rows(weights.words, ids), _rows(positions, self._positions(ids)))
        states = self._normalise(states, weights.norm)
        visible = op.convert(op.unsqueeze(mask, _whole([1, 2])), "boolean")
        for layer in weights.layers[:-1]:
            states = self._run(layer, states, states, visible)
        last = op.slice(states, *map(_whole, ([0], [1], [1], [1]))) if first_only else states
        return self._run(weights.layers[-1], last, states, visible)

    def _positions(self, ids: ov.Node) -> ov.Node:
        offset = self._weights.padding_offset
        if offset is None:
            length = op.gather(op.shape_of(ids), _whole(1), _whole(0))
            return op.unsqueeze(op.range(_whole(0), length, _whole(1), "i64"), _whole([0]))
        tokens = op.convert(op.not_equal(ids, _whole(offset)), "i64")
        return op.add(op.multiply(op.cum_sum(tokens, _whole(1)), tokens), _whole(offset))

    def _run(
        self, layer: BertLayer, states: ov.Node, context: ov.Node, visible: ov.Node
    ) -> ov.Node:
        """Returns the next states of tokens, which attend to all tokens of the context."""
        query = self._split(_apply(layer.query, states))
        key, value = (self._split(_apply(part, context)) for part in (layer.key, layer.value))
        mixed = op.scaled_dot_product_attention(query, key, value, visible)
        joined = op.reshape(
            op.transpose(mixed, _whole([0, 2, 1, 3])), _whole([0, 0, self._hidden]), True
        )
        states = self._normalise(
            op.add(_apply(layer.attended, joined), states), layer.attended_norm
        )
        widened = _apply(layer.down, op.gelu(_apply(layer.up, states), "erf"))
        return self._normalise(op.add(widened, states), layer.norm)

    def _split(self, states: ov.Node) -> ov.Node:
        heads = self._weights.heads
        shape = _whole([0, 0, heads, self._hidden // heads])
        return op.transpose(op.reshape(states, shape, True), _whole([0, 2, 1, 3]))

    def _normalise(self, states: ov.Node, norm: Norm) -> ov.Node:
        scaled = op.mvn(states, _whole([-1]), True, self._weights.epsilon, "inside_sqrt")
        return op.add(op.multiply(scaled, op.constant(norm.scale)), op.constant(norm.shift))

    def _pool(self, states: ov.Node, mask: ov.Node) -> ov.Node:
        if self._weights.pooling is PoolingMode.CLS:
            return op.gather(states, _whole(0), _whole(1))
        shares = op.unsqueeze(op.convert(mask, "f32"), _whole([2]))
        summed = op.reduce_sum(op.multiply(states, shares), _whole([1]))
        return op.divide(summed, op.reduce_sum(shares, _whole([1])))


def _inputs() -> tuple[ov.Node, ov.Node]:
    """Returns the ids and the mask."""
    ids = op.parameter([-1, -1], np.int64, name="input_ids")
    mask = op.parameter([-1, -1], np.int64, name="attention_mask")
    for parameter, name in ((ids, "input_ids"), (mask, "attention_mask")):
        parameter.output(0).set_names({name})
    return ids, mask


def _rows(table: NDArray[np.float32], numbers: ov.Node) -> ov.Node:
    return op.gather(op.constant(table), numbers, _whole(0))


def _apply(part: Linear, states: ov.Node) -> ov.Node:
    product = op.matmul(states, op.constant(part.weight), False, True)
    return op.add(product, op.constant(part.bias))


def _whole(values: int | Sequence[int]) -> ov.Node:
    return op.constant(np.array(values, np.int64))
