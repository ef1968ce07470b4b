"""The fp32 reference of BERT-like encoders: a plain forward pass in numpy.

It shares nothing with the OpenVINO graph but the weights, so that one checks the other.
"""

from __future__ import annotations

import numpy as np

from embedding.backend import TokenBatch
from embedding.bert_weights import Array, BertLayer, BertWeights, Linear, Norm
from embedding.model import PoolingMode

# Added to the score of a padded position before softmax.
_MASKED = np.float32(-1e9)


class NumpyBackend:
    """A `Backend` over numpy, for a few texts: slow, and plain enough to be read.

    Args:
        weights: The encoder.
    """

    name = "numpy-f32"
    slots = 1
    pad_multiple = 1

    def __init__(self, weights: BertWeights) -> None:
        self._weights = weights
        self.dim = weights.words.shape[1]

    def embed(self, batch: TokenBatch, slot: int) -> Array:
        """Runs the model; see `Backend.embed`."""
        weights = self._weights
        positions = np.broadcast_to(np.arange(batch.ids.shape[1]), batch.ids.shape)
        if weights.padding_offset is not None:
            tokens = batch.ids != weights.padding_offset
            positions = tokens.cumsum(axis=1) * tokens + weights.padding_offset
        states = weights.words[batch.ids] + weights.token_type + weights.positions[positions]
        states = self._normalise(states, weights.norm)
        masked = (1 - batch.mask[:, None, None, :]).astype(np.float32) * _MASKED
        for layer in weights.layers:
            states = self._run(layer, states, masked)
        if weights.pooling is PoolingMode.CLS:
            pooled = states[:, 0]
        else:
            shares = batch.mask[:, :, None].astype(np.float32)
            pooled = (states * shares).sum(axis=1) / shares.sum(axis=1)
        return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), np.float32)

    def _run(self, layer: BertLayer, states: Array, masked: Array) -> Array:
        query, key, value = (
            self._split(_apply(part, states)) for part in (layer.query, layer.key, layer.value)
        )
        scores = query @ key.swapaxes(2, 3) / np.float32(np.sqrt(query.shape[3])) + masked
        scores = np.exp(scores - scores.max(axis=3, keepdims=True))
        mixed = (scores / scores.sum(axis=3, keepdims=True)) @ value
        attended = _apply(layer.attended, mixed.swapaxes(1, 2).reshape(states.shape))
        states = self._normalise(states + attended, layer.attended_norm)
        widened = _apply(layer.down, _gelu(_apply(layer.up, states)))
        return self._normalise(states + widened, layer.norm)

    def _split(self, states: Array) -> Array:
        """Returns (n, heads, length, hidden / heads) from (n, length, hidden)."""
        texts, length, hidden = states.shape
        heads = self._weights.heads
        return states.reshape(texts, length, heads, hidden // heads).swapaxes(1, 2)

    def _normalise(self, states: Array, norm: Norm) -> Array:
        centred = states - states.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + np.float32(self._weights.epsilon))
        return np.asarray(scaled * norm.scale + norm.shift, np.float32)


def _apply(part: Linear, states: Array) -> Array:
    return np.asarray(states @ part.weight.T + part.bias, np.float32)


def _gelu(states: Array) -> Array:
    return np.asarray(states * np.float32(0.5) * (1 + _erf(states / np.float32(np.sqrt(2)))))


def _erf(values: Array) -> Array:
    """The error function, to 1.5e-7.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26.
    """
    size = np.abs(values)
    t = 1 / (1 + np.float32(0.3275911) * size)
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    return np.asarray(np.copysign(1 - series * np.exp(-size * size), values), np.float32)
