"""What a canary answers in shadow, compared with what was served."""

from __future__ import annotations

from nearline import contract as c


class ShadowOverlap:
    """Sums up how alike the answers of two snapshots are.

    compared: Requests that both answered.
    """

    def __init__(self) -> None:
        self.compared = 0
        self._sum = 0.0

    @property
    def overlap(self) -> float:
        """Mean share of the ids served that the canary gave, too, 0..1; 1 where nothing was."""
        return self._sum / self.compared if self.compared else 1.0

    def add(self, served: object, canary: object) -> None:
        """Takes in the replies of both to one request."""
        ids = _ids(served)
        self.compared += 1
        self._sum += len(ids & _ids(canary)) / len(ids) if ids else 1.0


def _ids(reply: object) -> set[str]:
    if isinstance(reply, c.SearchReply):
        return {hit.id for result in reply.results for hit in result.hits}
    if isinstance(reply, c.RecommendReply):
        return {one.hit.id for one in reply.recommendations}
    return set()
