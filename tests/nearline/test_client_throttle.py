"""A client sends little more than its server accepts, and finds out when there is room again."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest

from nearline.channel import ServiceChannel
from nearline.client_throttle import ClientThrottle
from nearline.errors import Overloaded
from nearline.v1 import ingest_pb2


class Server:
    """Accepts some calls a second, and refuses the others. sent: All that reached it."""

    def __init__(self, room: float) -> None:
        self.now_s = 0.0
        self.room = room
        self.sent = self.accepted = 0
        draw: Callable[[], float] = random.Random(7).random
        self.throttle = ClientThrottle("here:1", "Search", lambda: self.now_s, draw)

    def run(self, seconds: float, rate: float) -> None:
        tokens = 0.0
        for _ in range(int(seconds * rate)):
            self.now_s += 1 / rate
            tokens = min(tokens + self.room / rate, 5.0)
            with contextlib.suppress(Overloaded):
                self.throttle.begin()
                self.sent += 1
                self.throttle.end(refused=tokens < 1)
                if tokens >= 1:
                    tokens -= 1
                    self.accepted += 1


@pytest.mark.parametrize("times", [3, 10, 50])
def test_a_server_that_refuses_most_calls_gets_few_more_than_it_accepts(times: int) -> None:
    server = Server(room=100.0)
    server.run(10.0, 100.0 * times)
    server.sent = server.accepted = 0
    server.run(10.0, 100.0 * times)
    assert server.accepted >= 0.9 * 1_000
    assert server.sent <= 1.8 * server.accepted


def test_a_client_that_is_not_refused_is_not_throttled() -> None:
    server = Server(room=1e9)
    server.run(10.0, 1_000.0)
    assert server.sent == server.accepted == 10_000


def test_after_an_overload_everything_is_sent_again_within_seconds() -> None:
    server = Server(room=100.0)
    server.run(20.0, 1_000.0)
    server.room = 1e9
    # A third more every 0.7 seconds.
    server.run(10.0, 1_000.0)
    server.sent = 0
    server.run(5.0, 1_000.0)
    assert server.sent == 5_000


def test_a_few_refusals_in_a_row_throttle_nobody_and_the_error_says_when_to_retry() -> None:
    throttle = ClientThrottle("here:1", "Search", lambda: 0.0, lambda: 0.0)
    for _ in range(21):
        throttle.begin()
        throttle.end(refused=True)
    with pytest.raises(
        Overloaded, match="here:1 refuses most Search calls of this client"
    ) as caught:
        throttle.begin()
    assert caught.value.retry_after_s


def test_calls_in_flight_and_calls_that_fail_otherwise_throttle_nobody() -> None:
    throttle = ClientThrottle("here:1", "Search", lambda: 0.0, lambda: 0.0)
    for _ in range(10_000):
        throttle.begin()
    for _ in range(10_000):
        throttle.end(refused=False)
    throttle.begin()


async def test_what_is_refused_of_one_method_keeps_no_call_of_another_from_being_sent() -> None:
    async def refuse(request: Any, timeout: float) -> None:
        raise Overloaded("the queue is full")

    async def accept(request: Any, timeout: float) -> None:
        pass

    async with ServiceChannel("127.0.0.1:1") as channel:
        told = []
        for _ in range(200):
            with pytest.raises(Overloaded) as caught:
                await channel.send(refuse, ingest_pb2.SubmitRequest())
            told.append(caught.value.message)
        assert any("127.0.0.1:1 refuses most Submit calls of this client" in one for one in told)
        # Among them those that would end the overload.
        for _ in range(200):
            await channel.send(accept, ingest_pb2.CancelJobRequest())
