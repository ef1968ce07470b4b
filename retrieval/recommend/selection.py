"""Selects candidates one by one, each once and within the quotas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes, Scalar
from retrieval.protocols.compute_threads import Stopped
from retrieval.recommend.policies import Quota
from retrieval.search.diversity import MAX_COMPARISONS, diverse_order

QuotaKey: TypeAlias = tuple[str, Scalar]


class Candidate(NamedTuple):
    """An item that may be listed.

    score: Larger is better. attributes: None if unknown, which counts as no attributes. vector:
    (d,); None if unknown, which counts as similar to nothing. reasons: As in Recommendation,
    strongest first.
    """

    id: str
    score: float
    attributes: Attributes | None = None
    vector: NDArray[np.float32] | None = None
    reasons: tuple[str, ...] = ()


class Selection:
    """The candidates selected so far.

    candidates: In order of selection. refused: By id of a candidate that full quotas kept out, the
    attributes and values of those quotas. displaced: Ids that were replaced.

    Args:
        quotas: At most one for each attribute.
    """

    def __init__(self, quotas: Sequence[Quota]) -> None:
        self.candidates: list[Candidate] = []
        self.ids: set[str] = set()
        self.refused: dict[str, set[QuotaKey]] = {}
        self.displaced: set[str] = set()
        self._most = dict(quotas)
        self._counts: Counter[QuotaKey] = Counter()
        self._full: set[QuotaKey] = set()

    def take(self, candidate: Candidate) -> bool:
        """Appends a candidate; returns False if it is already selected or exceeds a quota."""
        if candidate.id in self.ids:
            return False
        if self._most:
            keys = self._keys(candidate)
            if full := keys & self._full:
                self.refused[candidate.id] = full
                return False
            self._count(keys, 1)
        self.candidates.append(candidate)
        self.ids.add(candidate.id)
        return True

    def take_first(self, left: Iterable[Candidate], size: int) -> None:
        """Appends candidates in their order until there are `size`."""
        for candidate in left:
            if len(self.candidates) >= size:
                return
            self.take(candidate)

    def take_diverse(
        self,
        left: Sequence[Candidate],
        size: int,
        diversity: float,
        stopped: Stopped = lambda: False,
    ) -> None:
        """Appends candidates until there are `size`, by score less similarity to those selected.

        Only the best candidates compete, as many as `MAX_COMPARISONS` allows; if they do not
        suffice, the others follow in their order.

        Args:
            left: Best first.
            size: Length of the whole list.
            diversity: 0..1, weight of the similarity.
            stopped: See `diverse_order`.
        """
        left = [one for one in left if one.id not in self.ids]
        pool = left[: MAX_COMPARISONS // max(1, size)]
        vectors = _stacked_vectors([*self.candidates, *pool])
        if vectors is not None:
            before, vectors = np.split(vectors, [len(self.candidates)])
            diverse_order(
                np.array([candidate.score for candidate in pool], np.float64),
                vectors,
                size - len(self.candidates),
                diversity,
                before=before,
                accepts=lambda place: self.take(pool[place]),
                stopped=stopped,
            )
        self.take_first(left, size)

    def exchange(
        self, left: Sequence[Candidate], wanted: Callable[[Candidate], bool], least: int, fixed: int
    ) -> None:
        """Replaces the last unwanted candidates by wanted ones until `least` wanted are selected.

        Args:
            left: Best first; candidates that are already selected are skipped.
            wanted: Returns whether a candidate is wanted.
            least: Wanted candidates needed. Fewer are selected if no more are left, or if replacing
                any other candidate would break a quota.
            fixed: Number of first places that stay unchanged.
        """
        missing = least - sum(map(wanted, self.candidates))
        if missing <= 0:
            return
        others = {
            place: self._keys(one)
            for place, one in enumerate(self.candidates)
            if place >= fixed and not wanted(one)
        }
        newcomers = [one for one in left if one.id not in self.ids and wanted(one)]
        exchanged: list[tuple[int, int]] = []
        while len(exchanged) < missing and (pair := self._fitting(newcomers, others)) is not None:
            number, place = pair
            self._replace(place, newcomers[number])
            del others[place]
            exchanged.append(pair)
        # Among the new items, better ones take earlier places.
        places = sorted(place for _, place in exchanged)
        for place, (number, _) in zip(places, sorted(exchanged), strict=True):
            self.candidates[place] = newcomers[number]

    def draw_pool(self, left: Iterable[Candidate], places: int, size: int) -> list[Candidate]:
        """Returns the best candidates of which any `places` can be selected within the quotas.

        Args:
            left: Best first.
            places: Number of candidates that will be drawn.
            size: Largest size of the pool.
        """
        pool: list[Candidate] = []
        members: Counter[QuotaKey] = Counter()
        for candidate in left:
            if len(pool) == size:
                break
            if candidate.id in self.ids:
                continue
            keys = self._keys(candidate)
            full = {key for key in keys if members[key] >= self._room(key) < places}
            if full:
                self.refused[candidate.id] = full
                continue
            members.update(keys)
            pool.append(candidate)
        return pool

    def _fitting(
        self, newcomers: Sequence[Candidate], others: dict[int, set[QuotaKey]]
    ) -> tuple[int, int] | None:
        """Returns the best new candidate that fits one of the other places, and that place."""
        for number, newcomer in enumerate(newcomers):
            if newcomer.id in self.ids:
                continue
            full = self._keys(newcomer) & self._full
            for place in reversed(others):
                if full <= others[place]:
                    return number, place
        return None

    def _replace(self, place: int, candidate: Candidate) -> None:
        old = self.candidates[place]
        self._count(self._keys(old), -1)
        self._count(self._keys(candidate), 1)
        self.ids.remove(old.id)
        self.displaced.add(old.id)
        self.candidates[place] = candidate
        self.ids.add(candidate.id)

    def _keys(self, candidate: Candidate) -> set[QuotaKey]:
        keys: set[QuotaKey] = set()
        attributes = candidate.attributes or {}
        for name in self._most:
            value = attributes.get(name)
            if isinstance(value, list | tuple):
                keys.update((name, element) for element in value if element is not None)
            elif value is not None:
                keys.add((name, value))  # type: ignore[arg-type]
        return keys

    def _room(self, key: QuotaKey) -> int:
        return self._most[key[0]] - self._counts[key]

    def _count(self, keys: Iterable[QuotaKey], more: int) -> None:
        for key in keys:
            self._counts[key] += more
            if self._room(key):
                self._full.discard(key)
            else:
                self._full.add(key)


def _stacked_vectors(candidates: Sequence[Candidate]) -> NDArray[np.float32] | None:
    """Returns the vectors, (n, d), zeros for unknown ones; None if all are unknown."""
    dim = next((one.vector.size for one in candidates if one.vector is not None), None)
    if dim is None:
        return None
    unknown = np.zeros(dim, np.float32)
    return np.array(
        [unknown if one.vector is None else one.vector for one in candidates], np.float32
    )
