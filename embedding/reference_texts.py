"""The reference texts: verify every backend at each start, and measure its throughput."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedding.backend import Backend, TokenBatch, pad, round_up
from embedding.tokenizer import TextTokenizer, TokenizedText
from nearline.errors import NotReady

MIN_COSINE = 0.999
# Every sixth golden text is in the sample.
_SAMPLE_STEP = 6

_PARAGRAPHS = (
    "A queue smooths the difference between the rate at which work arrives and the rate at which"
    " it is done. When it grows without limit it only hides the fact that there is too much work.",
    "The harbour was first dug in 1811 to shelter herring boats; the long breakwater, which"
    " visitors take for the original wall, was added only after the storm of 1881.",
    "Soak the beans overnight, rinse them, and simmer with a bay leaf, two cloves of garlic and a"
    " little oil until soft but whole, about ninety minutes. Salt goes in at the end.",
    "The committee finds that the applicant has not shown that the measure was necessary within the"
    " meaning of Article 8, paragraph 2, and that no less restrictive means were available.",
    "Mitochondria carry a small circular genome, inherited almost always from the mother, which"
    " mutates faster than nuclear DNA and is therefore used to date recent branchings.",
    "To return an item, print the label from your order page, pack the item in its original box and"
    " hand it in at any parcel shop within 30 days; refunds take three to five working days.",
    "If the index does not fit in memory, quantise the vectors to eight bits and keep the originals"
    " on disk for rescoring: the loss of recall is then usually below one per cent.",
    "She had meant to write at once, but the summer went by in visits and small repairs, and when"
    " the first frost came the letter was still three lines long.",
)

REFERENCE_TEXTS: tuple[str, ...] = (
    "a",
    "42",
    "?!",
    "hello",
    "Paris",
    "null",
    "3.14159 2.71828",
    "red shoes size 38",
    "how do I parse a date string",
    "What is the capital of Australia?",
    "wireless noise-cancelling headphones, black",
    "def add(a, b):\n    return a + b",
    "SELECT name, COUNT(*) FROM orders GROUP BY name HAVING COUNT(*) > 3;",
    '{"error": "timeout", "retry_after": 30, "path": "/v1/items"}',
    "https://example.org/a/b?c=d&e=%20f#g",
    "ERROR 2026-11-03T09:15:22Z worker-7: connection reset by peer",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
    "tabs\tand\nnew lines   and   runs of    spaces",
    "naïve café, crème brûlée, Ærøskøbing, straße, Łódź",
    "Ω ≈ 3.2 kΩ ± 5 %, ∑ x² ≤ ∞, α→β",
    "机器学习是人工智能的一个分支。",
    "東京の天気は晴れ、最高気温は二十五度です。",
    "한국어 문장도 하나 있습니다.",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "مرحبا بالعالم، هذه جملة قصيرة.",
    "שלום עולם",
    "यह एक छोटा वाक्य है।",
    "🙂🚀 emoji, 👩‍👩‍👧 joined, 🇫🇷 flags",
    "e\u0301 combining, \u00e9 composed, ﬁ ligature, \u200bzero width",
    "[MASK] and [SEP] written out in a text",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 300,
    "one two three four five six seven eight nine ten " * 4,
    *_PARAGRAPHS,
    " ".join(_PARAGRAPHS[:2]),
    " ".join(_PARAGRAPHS[2:5]),
    " ".join(_PARAGRAPHS[4:8]),
    " ".join(_PARAGRAPHS),
    " ".join(reversed(_PARAGRAPHS)),
    "\n\n".join(f"{number}. {text}" for number, text in enumerate(_PARAGRAPHS, 1)) * 2,
    "0123456789 " * 120,
)
REFERENCE_ID = hashlib.sha256("\0".join(REFERENCE_TEXTS).encode()).hexdigest()[:12]


class ReferenceSet:
    """The golden texts as one model's tokens, cut into batches as the service would cut them.

    Args:
        tokenizer: Tokenizer of the model.
        pad_id: Token id of padding.
        budget: Padded tokens of one batch.
        pad_multiple: Multiple to which the backend pads lengths.
    """

    def __init__(
        self, tokenizer: TextTokenizer, pad_id: int, budget: int, pad_multiple: int
    ) -> None:
        texts = tokenizer.tokenize(REFERENCE_TEXTS)
        self.rows = _cut(texts, budget, pad_multiple)
        self.batches: list[TokenBatch] = [
            pad([texts[row].ids for row in rows], pad_id, pad_multiple) for rows in self.rows
        ]
        self.tokens = sum(len(text.ids) for text in texts)

    def fill(self, budget: int, copies: int) -> None:
        """Repeats the texts of each batch up to a budget, and the batches, to measure with.

        Args:
            budget: Padded tokens of one batch.
            copies: Number of copies of each batch.
        """
        for at, batch in enumerate(self.batches):
            times = (max(1, budget // batch.ids.size), 1)
            self.batches[at] = TokenBatch(np.tile(batch.ids, times), np.tile(batch.mask, times))
        self.batches *= copies
        self.tokens = sum(int(batch.mask.sum()) for batch in self.batches)

    def embed(self, backend: Backend) -> NDArray[np.float32]:
        """Returns the vectors of all golden texts, (n, dim) float32, in their order."""
        vectors = np.empty((len(REFERENCE_TEXTS), backend.dim), np.float32)
        for number, (rows, batch) in enumerate(zip(self.rows, self.batches, strict=True)):
            vectors[rows] = backend.embed(batch, number % backend.slots)
        return vectors


class ReferenceSample:
    """A few golden texts whose vectors are known, to check a backend that is in use.

    batch: The texts.

    Args:
        tokenizer, pad_id, pad_multiple: See `ReferenceSet`.
        reference: (n, dim) float32, vectors of all golden texts.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        pad_id: int,
        pad_multiple: int,
        reference: NDArray[np.float32],
    ) -> None:
        texts = tokenizer.tokenize(REFERENCE_TEXTS[::_SAMPLE_STEP])
        self.batch = pad([text.ids for text in texts], pad_id, pad_multiple)
        self._reference = reference[::_SAMPLE_STEP]

    def problem(self, vectors: NDArray[np.float32]) -> str:
        """Returns why vectors of the batch are wrong; empty if they are right."""
        found = cosines(vectors, self._reference)
        worst = int(found.argmin())
        if found[worst] >= MIN_COSINE:
            return ""
        return (
            f"golden text {worst * _SAMPLE_STEP} has cosine {found[worst]:.6f} to the fp32 "
            f"reference, {MIN_COSINE} is needed"
        )


def cosines(vectors: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the cosine of each pair of rows, (n,) float32; NaN counts as -1."""
    wide, other = vectors.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1) * np.linalg.norm(other, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        result = (wide * other).sum(axis=1) / norms
    return np.asarray(np.nan_to_num(result, nan=-1.0), np.float32)


def check_vectors(name: str, vectors: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Compares with the stored vectors of the fp32 reference.

    Args:
        name: Name of the backend, for the error.
        vectors: (n, dim) float32 of the golden texts.
        reference: The same of the reference.
    Returns: The lowest cosine.
    Raises: NotReady: the shape differs, or a cosine is below 0.999; names the text and both values.
    """
    if vectors.shape != reference.shape:
        raise NotReady(
            f"{name} gives golden vectors of shape {vectors.shape}, stored are {reference.shape}; "
            "delete the cache folder of the model and start again"
        )
    found = cosines(vectors, reference)
    worst = int(found.argmin())
    if found[worst] < MIN_COSINE:
        raise NotReady(
            f"{name} cannot serve: golden text {worst} has cosine {found[worst]:.6f} to the "
            f"fp32 reference, {MIN_COSINE} is needed; use another backend or precision, or delete "
            "the cache folder of the model if its weights changed"
        )
    return float(found[worst])


def _cut(texts: Sequence[TokenizedText], budget: int, pad_multiple: int) -> list[list[int]]:
    order = sorted(range(len(texts)), key=lambda row: len(texts[row].ids))
    batches: list[list[int]] = [[]]
    for row in order:
        longest = round_up(len(texts[row].ids), pad_multiple)
        if batches[-1] and longest * (len(batches[-1]) + 1) > budget:
            batches.append([])
        batches[-1].append(row)
    return batches


def measure_throughput(backend: Backend, golden: ReferenceSet, seconds: float = 1.0) -> float:
    """Returns tokens per second over the reference texts with all slots busy, after a warm-up.

    Args:
        backend: The backend.
        golden: The texts.
        seconds: Minimum duration; whole rounds are run.
    """
    _round(backend, golden)
    start = time.perf_counter()
    rounds = 0
    while time.perf_counter() - start < seconds:
        _round(backend, golden)
        rounds += 1
    return golden.tokens * rounds / (time.perf_counter() - start)


def _round(backend: Backend, golden: ReferenceSet) -> None:
    # The longest first, so that no slot idles long at the end.
    batches = iter(sorted(golden.batches, key=lambda batch: -batch.ids.size))
    lock = threading.Lock()

    def run(slot: int) -> None:
        while True:
            with lock:
                batch = next(batches, None)
            if batch is None:
                return
            backend.embed(batch, slot)

    threads = [threading.Thread(target=run, args=(slot,)) for slot in range(backend.slots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
