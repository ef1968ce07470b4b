"""Candidates chosen one by one, none twice and none beyond a quota."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes, Scalar
from retrieval.recommend.policies import Quota

QuotaKey: TypeAlias = tuple[str, Scalar]


class Candidate(NamedTuple):
    """An item that may be listed.

    score: Larger is better. attributes: None: not known, as if there were none. vector: (d,); None:
    not known, like to nothing. reasons: As in Recommendation, strongest first.
    """

    id: str
    score: float
    attributes: Attributes | None = None
    vector: NDArray[np.float32] | None = None
    reasons: tuple[str, ...] = ()


class Selection:
    """Candidates chosen so far.

    quotas: At most one for an attribute. candidates: In order. refused: By id of a candidate that a
    full quota kept out, attributes and values of such quotas. displaced: Ids that gave way.
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
        """Adds a candidate at the end; False: it is there already, or a quota of it is full."""
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
        """Takes candidates in their order until there are `size`."""
        for candidate in left:
            if len(self.candidates) >= size:
                return
            self.take(candidate)

    def take_unlike(self, left: Sequence[Candidate], size: int, diversity: float) -> None:
        """Takes candidates until there are `size`, each by its score less its likeness to those.

        The formula is that of `diversity.diverse_order`, which knows neither quotas nor
        items that stand on the list before it begins.

        Args:
            left: Best first.
            size: Of the whole list.
            diversity: 0..1, weight of the likeness.
        """
        left = [one for one in left if one.id not in self.ids]
        vectors = _unit_vectors([*self.candidates, *left])
        if vectors is None:
            self.take_first(left, size)
            return
        before, vectors = np.split(vectors, [len(self.candidates)])
        scores = np.array([candidate.score for candidate in left], np.float64)
        top = np.abs(scores).max(initial=0.0)
        relevance = (1 - diversity) * (scores / top if top > 0 else scores)
        likeness = (vectors @ before.T).max(axis=1) if len(before) else None
        for _ in left:
            if len(self.candidates) >= size:
                return
            gain = relevance if likeness is None else relevance - diversity * likeness
            # The first of equal ones: the better candidate.
            best = int(np.argmax(gain))
            relevance[best] = -np.inf
            if self.take(left[best]):
                to_it = vectors @ vectors[best]
                likeness = to_it if likeness is None else np.maximum(likeness, to_it)

    def exchange(
        self, left: Sequence[Candidate], wanted: Callable[[Candidate], bool], least: int, fixed: int
    ) -> None:
        """Puts wanted candidates on the last places of others until there are `least` wanted ones.

        Args:
            left: Best first; those that are chosen are left alone.
            wanted: Tells whether a candidate is.
            least: How many there shall be. There are fewer where no more are left, or where none
                of the others could make room for one within the quotas.
            fixed: So many first places stay as they are.
        """
        missing = least - sum(map(wanted, self.candidates))
        if missing <= 0:
            return
        others = {
            place: self._keys(one)
            for place, one in enumerate(self.candidates)
            if place >= fixed and not wanted(one)
        }
        comers = [one for one in left if one.id not in self.ids and wanted(one)]
        came: list[tuple[int, int]] = []
        while len(came) < missing and (pair := self._fitting(comers, others)) is not None:
            comer, place = pair
            self._replace(place, comers[comer])
            del others[place]
            came.append(pair)
        # The better ones stand before the others.
        places = sorted(place for _, place in came)
        for place, (comer, _) in zip(places, sorted(came), strict=True):
            self.candidates[place] = comers[comer]

    def open_to(self, left: Iterable[Candidate], places: int, size: int) -> list[Candidate]:
        """Returns the first candidates of which any `places` could be taken within the quotas.

        Args:
            left: Best first.
            places: How many are to be taken.
            size: Of the answer, at most.
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
        self, comers: Sequence[Candidate], others: dict[int, set[QuotaKey]]
    ) -> tuple[int, int] | None:
        """Finds the best comer that one of the other places is open to, and the last such place."""
        for number, comer in enumerate(comers):
            if comer.id in self.ids:
                continue
            full = self._keys(comer) & self._full
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


def _unit_vectors(candidates: Sequence[Candidate]) -> NDArray[np.float32] | None:
    """Stacks vectors at unit length, (n, d); 0 for those not known; None: none is known."""
    dim = next((one.vector.size for one in candidates if one.vector is not None), None)
    if dim is None:
        return None
    unknown = np.zeros(dim, np.float32)
    stacked = np.array(
        [unknown if one.vector is None else one.vector for one in candidates], np.float32
    )
    norms: NDArray[np.float32] = np.linalg.norm(stacked, axis=1, keepdims=True)
    norms[norms == 0] = 1
    return stacked / norms
