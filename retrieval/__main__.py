"""The router: `python -m retrieval --store DIR`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nearline import serving, settings, telemetry
from nearline.clients import EmbeddingClient
from nearline.snapshot import Store
from nearline.v1 import admin_pb2_grpc, retrieval_pb2_grpc
from retrieval.admin_servicer import AdminServicer
from retrieval.embedders import Embedders
from retrieval.hosting import Hosting
from retrieval.in_force import SnapshotInForce
from retrieval.life.follower import Follower, Life
from retrieval.life.serving import ServedCollections
from retrieval.remote_hosting import RemoteShards
from retrieval.served import ServedCollection
from retrieval.service import RetrievalService
from retrieval.servicer import RetrievalServicer
from retrieval.settings import RouterSettings
from retrieval.topology import check_address, parse_topology


async def main(argv: Sequence[str]) -> None:
    """Serves until told to stop."""
    chosen = settings.load_from_process(RouterSettings, argv)
    telemetry.configure_logging(chosen.log_level, "retrieval")
    store = Store.open(chosen.store, chosen.cache_dir)
    addresses = [part.strip() for part in chosen.embedding.split(",") if part.strip()]
    embedding = {one: EmbeddingClient(check_address(one, "--embedding")) for one in addresses}
    hosting = _hosting(chosen, store)
    collections = ServedCollections(chosen.snapshot_drain_s)
    service = RetrievalService(Embedders(embedding), collections)

    async def load(snapshot: SnapshotInForce) -> ServedCollection:
        return ServedCollection(snapshot, await hosting.prepare(snapshot))

    follower = Follower(
        store,
        chosen.collection_names(),
        collections.holdings,
        Life(load=load, unload=hosting.release),
        poll_s=chosen.alias_poll_s,
    )

    async def close() -> None:
        await follower.close()
        await hosting.close()
        for client in embedding.values():
            await client.close()

    await serving.serve(
        chosen,
        [
            serving.Registration(
                "nearline.v1.RetrievalService",
                lambda server: retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(
                    RetrievalServicer(service), server
                ),
            ),
            serving.Registration(
                "nearline.v1.AdminService",
                lambda server: admin_pb2_grpc.add_AdminServiceServicer_to_server(
                    AdminServicer(store, collections, follower.pursuits), server
                ),
            ),
        ],
        ready=follower.start,
        close=close,
    )


def _hosting(chosen: RouterSettings, store: Store) -> Hosting:
    if chosen.shards:
        return RemoteShards(parse_topology(chosen.shards), chosen.shard_wait_s)
    # Imported late: a router without shards of its own runs where faiss is not installed.
    from retrieval.local_hosting import LocalShards

    return LocalShards(store, chosen.thread_count(), headroom=chosen.load_headroom)


if __name__ == "__main__":
    serving.let_run_on()
    serving.run(main(sys.argv[1:]), "retrieval")
