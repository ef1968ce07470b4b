"""Two tenants may use the same id, and neither can name what belongs to the other."""

from __future__ import annotations

import pytest

from nearline.access.caller import ANONYMOUS, Caller
from nearline.access.rights import Right
from nearline.access.tenant_ids import name_of, shown_id, stored_id, stored_key, tenant_of
from nearline.errors import InvalidRequest

WRITES = {"*": Right.WRITE}
A, B, DEFAULT = (Caller(tenant, rights=WRITES) for tenant in ("a", "b", "default"))
OPERATOR = Caller("*", rights=WRITES)


@pytest.mark.parametrize(
    ("caller", "stored"),
    [
        (A, "tenant/a/ann"),
        (Caller("a/b", rights=WRITES), "tenant/a%2Fb/ann"),
        (DEFAULT, "ann"),
        (OPERATOR, "ann"),
        (ANONYMOUS, "ann"),
    ],
)
def test_an_id_is_stored_with_its_tenant_and_shown_without(caller: Caller, stored: str) -> None:
    assert stored_id(caller, "ann", "user_id") == stored
    assert shown_id(caller, stored) == "ann"
    assert stored_id(caller, "", "user_id") == ""


def test_nobody_but_an_operator_reaches_the_id_of_another_tenant() -> None:
    stored = stored_id(A, "ann", "user_id")
    assert stored_id(OPERATOR, stored, "user_id") == stored
    assert stored_id(B, stored, "user_id") == f"tenant/b/{stored}"
    # Neither with a tenant whose name is part of the id.
    assert stored_id(Caller("a/x", rights=WRITES), "ann", "user_id") != stored_id(A, "x/ann", "")
    with pytest.raises(InvalidRequest, match="user_id begins with 'tenant/'") as caught:
        stored_id(DEFAULT, stored, "user_id")
    assert caught.value.field == "user_id"


def test_an_idempotency_key_is_of_a_tenant_and_as_short_as_any() -> None:
    longest = "k" * 128
    keys = {stored_key(caller, longest) for caller in (A, B, DEFAULT)}
    assert len(keys) == 3 and max(len(key) for key in keys) <= 128
    assert stored_key(A, "k") == stored_key(A, "k") != stored_key(A, "l")
    assert stored_key(A, "") == ""
    assert stored_key(OPERATOR, "k") == stored_key(ANONYMOUS, "k") == "k"
    with pytest.raises(InvalidRequest, match="idempotency_key begins with 'tenant/'"):
        stored_key(DEFAULT, stored_key(A, "k"))
    # Neither by a name that is as long as it likes, or that runs into the key.
    long, longer = (Caller("t" * 64 + end, rights=WRITES) for end in ("", "x"))
    assert stored_key(long, "xk") != stored_key(longer, "k") != stored_key(long, "k")


def test_the_tenant_of_a_stored_id_is_that_of_its_caller() -> None:
    for tenant in ("acme", "a/b", "ü", "default"):
        caller = Caller(tenant, rights=WRITES)
        assert tenant_of(stored_id(caller, "ann/1", "user_id")) == tenant
    assert (tenant_of("ann"), tenant_of("")) == ("default", "")


def test_the_length_of_an_id_is_that_of_what_the_caller_sent() -> None:
    for tenant in ("acme", "a/b", "ü"):
        caller = Caller(tenant, rights=WRITES)
        assert name_of(stored_id(caller, "ann/1", "user_id")) == "ann/1"
    for plain in ("ann", "tenant/", "tenant/acme", "tenant/acme/", f"tenant/{'a' * 1_025}/x"):
        assert name_of(plain) == plain
