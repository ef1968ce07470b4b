"""Every method of every service has a row, and every row a method."""

from __future__ import annotations

from google.protobuf import descriptor_pool

from nearline.access.rights import METHODS, OLD_SHARD_SERVICE, MethodAccess, Right, Scope
from nearline.internal.v1 import shard_pb2
from nearline.v1 import admin_pb2, embedding_pb2, generation_pb2, ingest_pb2, retrieval_pb2

MODULES = (admin_pb2, embedding_pb2, generation_pb2, ingest_pb2, retrieval_pb2, shard_pb2)
SERVICES = {
    service.full_name: service
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
}


# What was renamed has a row by each name.
SERVICES[OLD_SHARD_SERVICE] = SERVICES["nearline.internal.v1.ShardService"]


def rows() -> list[tuple[str, MethodAccess]]:
    return [(f"{s}/{m}", row) for s, methods in METHODS.items() for m, row in methods.items()]


def test_the_table_has_each_method_of_the_protocol_and_no_other() -> None:
    assert {name: set(methods) for name, methods in METHODS.items()} == {
        name: {one.name for one in service.methods} for name, service in SERVICES.items()
    }


def test_every_service_of_the_protocol_is_looked_at() -> None:
    pool = descriptor_pool.Default()
    for service in SERVICES.values():
        assert pool.FindServiceByName(service.full_name)
    assert len(SERVICES) == 7


def test_a_scope_fits_the_fields_of_the_request() -> None:
    for service, methods in METHODS.items():
        for method, row in methods.items():
            request = SERVICES[service].methods_by_name[method].input_type
            if row.scope is Scope.BATCHES:
                request = request.fields_by_name["request"].message_type
            has_collection = "collection" in request.fields_by_name
            if row.scope is not Scope.NONE:
                assert has_collection, f"{service}/{method} names no collection"
            elif row.right is not Right.SERVICE and has_collection:
                # It filters by a collection, but is restricted by tenant.
                assert service == "nearline.v1.IngestService", f"{service}/{method}"


def test_nobody_needs_no_right_and_what_destroys_is_audited() -> None:
    for name, row in rows():
        assert row.right > Right.NONE, name
        method = name.rpartition("/")[2]
        # SetUser writes data, as RecordInteractions does.
        if method != "SetUser" and method.startswith(
            ("Delete", "Promote", "Rollback", "Set", "Cancel", "Requeue")
        ):
            assert row.audited, name
