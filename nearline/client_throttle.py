"""Keeps a client from sending calls that its server would refuse."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from nearline.errors import Overloaded

# For each call that is accepted, this many are sent: the others find out when there is room again.
_SENT_PER_ACCEPTED: Final = 1.3
# Fewer refusals than this say nothing.
_LEAST: Final = 20.0
# Calls count half as much after this long.
_HALF_LIFE_S: Final = 0.5
_RETRY_AFTER_S: Final = 1.0


class ClientThrottle:
    """Refuses calls of a method where they are made, while the server refuses most of them.

    A refusal costs a server a tenth of an answer and more. While it refuses, a client that sends
    all the same takes away from what could be answered.

    Source: Site Reliability Engineering (O'Reilly 2016), chapter 21, "client-side throttling".

    Args:
        address: The server, for errors.
        method: Name of the method, for errors.
        clock: Returns seconds.
        draw: Returns a random number, 0..1.
    """

    def __init__(
        self,
        address: str,
        method: str,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._address = address
        self._method = method
        self._clock = clock
        self._draw = draw
        self._asked = self._accepted = 0.0
        self._faded_s = clock()

    def begin(self) -> None:
        """Raises Overloaded if a call is not to be sent, since it would be refused."""
        self._fade()
        beyond = self._asked - _SENT_PER_ACCEPTED * self._accepted - _LEAST
        if beyond > 0 and self._draw() < beyond / (self._asked + 1):
            self._asked += 1
            raise Overloaded(
                f"{self._address} refuses most {self._method} calls of this client, so this one "
                "was not sent; retry later, or send fewer calls at once",
                retry_after_s=_RETRY_AFTER_S,
            )

    def end(self, *, refused: bool) -> None:
        """Counts a call that was sent, once it has ended; those in flight say nothing yet.

        refused: Whether the server refused it because it has too many.
        """
        self._asked += 1
        self._accepted += not refused

    def _fade(self) -> None:
        now_s = self._clock()
        # The clock may be set back.
        factor = 0.5 ** (max(0.0, now_s - self._faded_s) / _HALF_LIFE_S)
        self._faded_s = now_s
        self._asked *= factor
        self._accepted *= factor
