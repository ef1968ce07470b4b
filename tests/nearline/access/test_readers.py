"""Items are shown to their readers, by the filter and by the attribute alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from generation.settings import GenerationSettings
from nearline.access.caller import Caller
from nearline.access.readers import ReaderFilter
from nearline.access.rights import Right
from nearline.errors import PermissionDenied, SettingsError
from nearline.filters import All, Equals, In, admits
from nearline.serving import check_security
from nearline.settings import ServerSettings
from retrieval.settings import RouterSettings

ANNA = Caller("a", ("editor",))
READERS = "readers"


@pytest.mark.parametrize(
    ("readers", "seen"),
    [
        (["public"], True),
        ("public", True),
        (["tenant:a"], True),
        (["role:editor", "tenant:b"], True),
        (["tenant:b"], False),
        (["a"], False),
        (["role:a"], False),
        ([], False),
        (None, False),
    ],
)
def test_an_item_is_visible_to_its_readers_and_the_filter_agrees(
    readers: object, seen: bool
) -> None:
    readers_of = ReaderFilter(READERS)
    attributes = {} if readers is None else {READERS: readers}
    assert readers_of.sees(ANNA, attributes) is seen  # type: ignore[arg-type]
    narrowed = readers_of.narrow(None, ANNA)
    assert narrowed is not None and admits(narrowed, attributes) is seen


def test_the_filter_of_a_question_is_only_narrowed() -> None:
    asked = Equals("kind", "law")
    readers_of = ReaderFilter(READERS)
    mine = In(READERS, ("public", "tenant:a", "role:editor"))
    assert readers_of.narrow(asked, ANNA) == All(asked, mine)
    assert ReaderFilter().narrow(asked, ANNA) is asked
    assert ReaderFilter().sees(ANNA, {})


@pytest.mark.parametrize(
    ("readers", "owned"),
    [
        (["tenant:a"], True),
        ("tenant:a", True),
        ("role:editor", False),
        (["tenant:a", "role:editor"], True),
        (["tenant:a", "public"], False),
        (["tenant:a", "tenant:b"], False),
        (["role:other"], False),
        ([], False),
        (None, False),
    ],
)
def test_an_item_is_the_callers_own_if_all_its_readers_are_its_names(
    readers: list[str] | str | None, owned: bool
) -> None:
    owner = ReaderFilter(READERS).ownership(replace(ANNA, rights={"*": Right.WRITE}))
    assert owner is not None
    attributes = {} if readers is None else {READERS: readers}
    assert owner.includes(attributes) is owned
    if readers is None:
        owner.check(attributes)
        assert owner.claim({"kind": "law"}) == {"kind": "law", READERS: ["tenant:a"]}
        # As the other items of the collection have it: a list among single values is refused.
        claimed = owner.claim({"kind": "law"}, single_valued={READERS})
        assert claimed == {"kind": "law", READERS: "tenant:a"}
    elif owned:
        assert owner.claim(attributes) == attributes
    else:
        with pytest.raises(PermissionDenied, match="only role:editor, tenant:a in"):
            owner.claim(attributes)
    with pytest.raises(PermissionDenied):
        owner.check({READERS: None})


def test_without_an_attribute_and_for_operators_every_item_may_be_written() -> None:
    # ANNA's rights are those of a service.
    assert ReaderFilter().ownership(ANNA) is ReaderFilter(READERS).ownership(ANNA) is None
    assert ReaderFilter(READERS).ownership(Caller("*")) is None


def test_an_operator_sees_items_whoever_their_readers_are() -> None:
    asked, operator = Equals("kind", "law"), Caller("*")
    assert ReaderFilter(READERS).narrow(asked, operator) is asked
    assert ReaderFilter(READERS).sees(operator, {})


@pytest.mark.parametrize("kind", [RouterSettings, GenerationSettings])
def test_readers_are_not_set_where_nobody_tells_callers_apart(kind: type[ServerSettings]) -> None:
    chosen = kind.load({"readers_attribute": READERS})
    with pytest.raises(SettingsError, match=r"every caller is .*'default'.*--keys.*--insecure"):
        check_security(chosen)
    assert not kind.load().security_warning()
    # Who insists is reminded.
    insisting = kind.load({"readers_attribute": READERS, "insecure": True})
    check_security(insisting)
    assert "readers_attribute" in insisting.security_warning()
    for name in ("keys", "token_issuer"):
        known = kind.load({"readers_attribute": READERS, name: "x"})
        assert not known.security_warning()


def test_generation_may_tell_callers_apart_by_its_own_file() -> None:
    known = GenerationSettings.load({"readers_attribute": READERS, "callers": "callers.toml"})
    check_security(known)
