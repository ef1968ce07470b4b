"""Records a sample of requests and what they showed, to evaluate other snapshots and to learn from.

Records contain neither users nor sessions, and texts only with privacy "texts". The id of a list
links it to the interactions that name it, as long as those are stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import defaultdict
from datetime import timedelta
from typing import Literal

from google.protobuf.timestamp_pb2 import Timestamp

from nearline import contract as c, wire
from nearline.errors import NearlineError
from nearline.internal.v1.traffic_pb2 import RecordedRequest
from nearline.store.snapshot import Store
from nearline.store.traffic import remove_old_traffic, remove_traffic, write_traffic
from retrieval.monitoring import metrics
from retrieval.router.events import RecommendEvent, RequestEvent, SearchEvent

Privacy = Literal["off", "vectors", "texts"]
# Together at most 320 MiB, and usually a tenth of that.
MAX_FILES = 20
_MAX_BYTES = 32 << 10
_MAX_AGE = timedelta(days=30)
_INTERVAL_S = 60.0
_FULL_FILE = 500
# Maximum number of pending requests per collection while the store is slow; further requests are
# dropped, as are larger ones.
_MAX_PENDING = 2_000
_MAX_IDS = 100
_log = logging.getLogger(__name__)


class TrafficRecorder:
    """Records a sample of searches and recommendations; observes request events.

    Sampled requests are written every 60 s, or when a collection has 500 of them; a file of fewer
    is replaced by the next one, which has its requests, too. The newest 20 files of a collection
    are kept, for 30 days. If the store fails, the requests of that write are lost. Belongs to the
    event loop.

    Args:
        store: Store to write to.
        share: Share of requests to sample, 0..1.
        privacy: "vectors" records the vector of a text query and skips queries without one; "texts"
            records the text as well; "off" records nothing.
    """

    def __init__(self, store: Store, share: float, privacy: Privacy = "vectors") -> None:
        self._store = store
        self._share = 0.0 if privacy == "off" else share
        self._texts = privacy == "texts"
        self._pending: dict[str, list[RecordedRequest]] = defaultdict(list)
        self._partial: dict[str, tuple[str, list[RecordedRequest]]] = {}
        self._full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._warned = False

    def start(self) -> None:
        """Starts recording; requires a running event loop."""
        if self._share:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Writes pending requests and stops."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            await self.write()

    def observe(self, event: RequestEvent) -> None:
        """Samples a request; never raises."""
        if event.options.unrecorded:
            return
        if random.random() >= self._share:
            return
        if isinstance(event, SearchEvent):
            request = self._record_search(event)
        else:
            request = _record_list(event)
        if request is None:
            return
        name = event.collection.name
        pending = self._pending[name]
        if len(pending) >= _MAX_PENDING or request.ByteSize() > _MAX_BYTES:
            metrics.recorded.labels(name, "dropped").inc()
            return
        pending.append(request)
        if len(pending) >= _FULL_FILE:
            self._full.set()

    async def write(self) -> None:
        """Writes pending requests, one file per collection; counts failures and logs the first."""
        self._full.clear()
        for name in list(self._pending):
            # Write one collection at a time, so that a cancellation loses at most one.
            requests = self._pending.pop(name)
            outcome = await asyncio.to_thread(self._write_now, name, requests)
            metrics.recorded.labels(name, outcome).inc(len(requests))

    def _write_now(self, collection: str, requests: list[RecordedRequest]) -> str:
        before, earlier = self._partial.pop(collection, ("", []))
        whole = [*earlier, *requests]
        if len(whole) > _FULL_FILE:
            before, whole = "", requests
        try:
            name = write_traffic(self._store, collection, whole)
            if before:
                remove_traffic(self._store, collection, before)
            remove_old_traffic(self._store, collection, MAX_FILES, _MAX_AGE)
            self._partial[collection] = name, whole
        except (NearlineError, OSError) as error:
            if not self._warned:
                self._warned = True
                _log.warning(
                    "requests are not recorded; logged once",
                    extra={"collection": collection, "reason": str(error)},
                )
            return "failed"
        self._warned = False
        return "written"

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_INTERVAL_S):
                    await self._full.wait()
            try:
                await self.write()
            except Exception:
                # Recording must not affect requests.
                _log.exception("requests are not recorded")

    def _record_search(self, event: SearchEvent) -> RecordedRequest | None:
        served, _, query, options, batch, hits, *_ = event
        vector = b""
        if query.text is not None and batch is not None and len(batch.queries.vectors) == 1:
            vector = batch.queries.vectors[0].astype("<f4").tobytes()
        shown = query
        if query.text is not None and not self._texts:
            if not vector:
                return None
            assert batch is not None
            shown = c.Query(vector=batch.queries.vectors[0])
        message = RecordedRequest(
            time=_now(),
            snapshot_id=served.snapshot_id,
            fingerprint=served.fingerprint,
            vector=vector,
            ids=[hit.id for hit in hits[:_MAX_IDS]],
            scores=[hit.score for hit in hits[:_MAX_IDS]],
            list_id=event.list_id,
            personal=event.personal,
        )
        message.search.collection = served.name
        message.search.query.CopyFrom(wire.query_to_proto(shown))
        plain = c.SearchOptions(
            k=options.k,
            # Without its text, a query cannot be searched lexically.
            mode=options.mode if shown.text is not None else None,
            level=options.level,
            payload=options.payload,
            ef_search=options.ef_search,
            nprobe=options.nprobe,
            exact=options.exact,
            filter=options.filter,
            min_score=None if shown is not query else options.min_score,
            grouping=options.grouping,
            diversity=options.diversity,
            boosts=options.boosts,
            dense_weight=options.dense_weight if shown.text is not None else None,
            plain_text=options.plain_text,
            min_should_match=options.min_should_match if shown.text is not None else None,
        )
        message.search.options.CopyFrom(wire.options_to_proto(plain))
        return message


def _record_list(event: RecommendEvent) -> RecordedRequest:
    served, _, audience, options, reply, personal = event
    shown = reply.recommendations[:_MAX_IDS]
    message = RecordedRequest(
        time=_now(),
        snapshot_id=served.snapshot_id,
        fingerprint=served.fingerprint,
        ids=[one.hit.id for one in shown],
        scores=[one.hit.score for one in shown],
        list_id=reply.info.list_id,
        personal=personal,
    )
    anybody = c.Audience(item_ids=audience.item_ids, surface=audience.surface)
    plain = c.RecommendOptions(
        n=options.n,
        filter=options.filter,
        payload=options.payload,
        diversity=options.diversity,
    )
    message.recommend.CopyFrom(wire.recommend_request(anybody, plain, served.name))
    return message


def _now() -> Timestamp:
    time_us = time.time_ns() // 1_000
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1_000)
