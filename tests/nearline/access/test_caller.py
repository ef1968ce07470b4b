"""The rights and the tenant of a caller come from its credential alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nearline.access.caller import ANONYMOUS, Caller
from nearline.access.delegation import DELEGATION_KEY, delegation_of, read_delegation
from nearline.access.rights import Right
from nearline.errors import PermissionDenied, Unauthenticated

SHOP = Caller("shop", ("staff",), {"products": Right.WRITE, "*": Right.READ}, "k1")
ONE = Caller("shop", (), {"products": Right.READ}, "k2")


@pytest.mark.parametrize(
    ("caller", "collection", "highest"),
    [
        (SHOP, "products", Right.WRITE),
        (SHOP, "articles", Right.READ),
        (ONE, "products", Right.READ),
        (ONE, "articles", Right.NONE),
        (ONE, "*", Right.NONE),
        (ANONYMOUS, "products", Right.SERVICE),
    ],
)
def test_a_right_holds_in_its_collection(caller: Caller, collection: str, highest: Right) -> None:
    for right in Right:
        if right <= highest:
            caller.require(right, "Search", collection)
        else:
            with pytest.raises(PermissionDenied, match=f"needs the right '{right.name.lower()}'"):
                caller.require(right, "Search", collection)


def test_a_method_of_no_collection_needs_the_right_in_any() -> None:
    SHOP.require(Right.WRITE, "Submit")
    with pytest.raises(PermissionDenied, match="in any collection"):
        ONE.require(Right.WRITE, "Submit")
    with pytest.raises(PermissionDenied):
        Caller("k3", rights={}).require(Right.READ, "Embed")


def test_the_tenant_is_that_of_the_credential_and_never_of_the_request() -> None:
    assert SHOP.tenant_of("") == SHOP.tenant_of("shop") == "shop"
    with pytest.raises(PermissionDenied, match="tenant 'other'"):
        SHOP.tenant_of("other")
    assert SHOP.acts_for("shop") and not SHOP.acts_for("other")
    assert ANONYMOUS.tenant_of("other") == "other" and ANONYMOUS.acts_for("other")
    operator = Caller("*", rights={"*": Right.READ})
    assert operator.acts_for("other")
    # A service that calls on behalf of one tenant has no other.
    passed_on = replace(ANONYMOUS, tenant="shop", through_service=True)
    assert passed_on.acts_for("shop") and not passed_on.acts_for("other")
    assert operator.tenant_of("other") == "other"
    assert operator.tenant_of("") == ""


def test_a_service_passes_on_the_caller_as_it_is() -> None:
    key, value = delegation_of(SHOP)
    assert key == DELEGATION_KEY
    passed_on = read_delegation(value)
    assert passed_on == replace(SHOP, through_service=True)
    # The service may ask what services ask; for the rest, the caller's own rights hold.
    passed_on.require(Right.SERVICE, "SearchShard")
    passed_on.require(Right.WRITE, "UpsertItems", "products")
    with pytest.raises(PermissionDenied):
        passed_on.require(Right.WRITE, "UpsertItems", "articles")
    with pytest.raises(PermissionDenied):
        passed_on.require(Right.ADMIN, "PromoteSnapshot", "products")


def test_a_service_gives_no_right_that_it_does_not_have() -> None:
    everything = Caller("*", rights={"*": Right.SERVICE})
    assert SHOP.through(everything).rights.items() >= SHOP.rights.items()
    service = Caller("*", rights={"*": Right.READ, "products": Right.SERVICE})
    claimed = Caller("*", rights={"*": Right.SERVICE}).through(service)
    assert claimed.right_in("products") is Right.SERVICE
    assert claimed.right_in("anything else") is Right.READ
    only = Caller("*", rights={"scratch": Right.SERVICE})
    with pytest.raises(PermissionDenied):
        everything.through(only).require(Right.ADMIN, "DropCollection", "products")


@pytest.mark.parametrize(
    "value",
    [b"", b"{}", b"[]", b"\xff", b"[" * 10_000, b'{"name":"a","tenant":"b","roles":[],"rights":3}',
     b'{"name":"a","tenant":"b","roles":[],"rights":{"*":9}}', b" " * 20_000],
)  # fmt: skip
def test_a_damaged_delegation_is_refused(value: bytes) -> None:
    with pytest.raises(Unauthenticated, match="cannot be read"):
        read_delegation(value)


def test_a_conversation_belongs_to_a_tenant_and_its_roles() -> None:
    callers = [
        Caller("a"),
        Caller("a", ("b",)),
        Caller("a+b"),
        Caller("a", ("b", "c")),
        Caller("b"),
    ]
    assert len({caller.owner for caller in callers}) == len(callers)
    assert ANONYMOUS.owner == "default"
