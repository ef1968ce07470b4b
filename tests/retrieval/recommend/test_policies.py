"""Policies are read from a file, and errors name the remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from nearline.contract import PayloadField
from nearline.errors import InvalidRequest, SettingsError
from nearline.times import DAY_US
from retrieval.recommend.policies import (
    ExploreRule,
    FreshRule,
    Origin,
    Policy,
    Quota,
    SeenRule,
    default_policies,
    seen_items,
)
from retrieval.recommend.policy_file import read_policies
from retrieval.users.records import UserEvent

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "surfaces.md"
WHOLE = """
version = 3
[surfaces.home]
seen = "exclude"
seen_kinds = ["purchase", "cart"]
seen_days = 90
quotas = { brand = 2, "maker.name" = 1 }
pinned = ["sku-2", "sku-1"]
blocked = ["sku-9", "sku-8"]
diversity = 0.2
fresh = { attribute = "released", days = 30, places = 2 }
explore = { places = 1, pool = 50 }
candidates = 100
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "policies.toml"
    path.write_text(text, "utf-8")
    return path


def test_every_key_is_read(tmp_path: Path) -> None:
    policies = read_policies(written(tmp_path, WHOLE))
    expected = Policy(
        name="home",
        version=3,
        seen=SeenRule(repeat=False, kinds=frozenset({"purchase", "cart"}), days=90),
        quotas=(Quota("brand", 2), Quota("maker.name", 1)),
        pinned=("sku-2", "sku-1"),
        blocked=frozenset({"sku-8", "sku-9"}),
        diversity=0.2,
        fresh=FreshRule("released", 30, 2),
        explore=ExploreRule(1, 50),
        candidates=100,
    )
    assert policies.for_surface("home") == expected
    assert policies.for_surface("home").label == f"home/3/{expected.digest}"
    # Replies, logs and caches of other versions and processes name it so, too.
    assert expected.digest == "599e5f1c"


def test_a_file_replaces_and_adds_surfaces(tmp_path: Path) -> None:
    policies = read_policies(written(tmp_path, "version = 7\n[surfaces.cart]\n[surfaces.mail]"))
    assert policies.surfaces == ["buy_again", "cart", "home", "item_page", "mail", "trending"]
    assert [policies.for_surface(name).version for name in policies.surfaces] == [0, 7, 0, 0, 7, 0]
    assert not policies.for_surface("cart").seen.repeat
    built_in = default_policies()
    repeating = [name for name in built_in.surfaces if built_in.for_surface(name).seen.repeat]
    assert repeating == ["buy_again", "cart"]
    origins = {name: built_in.for_surface(name).origin for name in ("cart", "home", "item_page")}
    assert set(origins.values()) == {Origin.AUTO}
    assert built_in.for_surface("trending").origin is Origin.TRENDING
    assert built_in.for_surface("buy_again").origin is Origin.BUY_AGAIN


def test_an_unknown_surface_names_the_nearest_first() -> None:
    with pytest.raises(InvalidRequest, match="'itempage' has no policy; use one of 'item_page', "):
        default_policies().for_surface("itempage")


def test_the_digest_is_of_the_content_not_of_its_order(tmp_path: Path) -> None:
    lines = WHOLE.strip().splitlines()
    turned = "\n".join([*lines[:2], *reversed(lines[2:])])
    turned = turned.replace('"purchase", "cart"', '"cart", "purchase"')
    turned = turned.replace('brand = 2, "maker.name" = 1', '"maker.name" = 1, brand = 2')
    turned = turned.replace('"sku-9", "sku-8"', '"sku-8", "sku-9"')
    first = read_policies(written(tmp_path, WHOLE)).for_surface("home")
    assert read_policies(written(tmp_path, turned)).for_surface("home") == first
    # What is not written is as its default, and 0 is 0.0.
    assert turned != WHOLE
    plain = read_policies(written(tmp_path, "version = 1\n[surfaces.a]\n[surfaces.b]\nquotas={}"))
    explicit = "version = 1\n[surfaces.a]\ndiversity = 0\ncandidates = 200\nseen = 'auto'"
    assert plain.for_surface("a").digest == plain.for_surface("b").digest
    assert plain.for_surface("a") == read_policies(written(tmp_path, explicit)).for_surface("a")


CHANGES = [
    ("version = 3", "version = 4"),
    ('"exclude"', '"repeat"'),
    ('"purchase", ', ""),
    ("seen_days = 90", "seen_days = 91"),
    ("brand = 2", "brand = 3"),
    ('"sku-2", "sku-1"', '"sku-1", "sku-2"'),
    ('"sku-9", ', ""),
    ("0.2", "0.3"),
    ("days = 30", "days = 31"),
    ("pool = 50", "pool = 51"),
    ("candidates = 100", "candidates = 101"),
]


def test_each_change_of_content_changes_the_digest(tmp_path: Path) -> None:
    texts = [WHOLE, *(WHOLE.replace(old, new) for old, new in CHANGES)]
    digests = {read_policies(written(tmp_path, text)).for_surface("home").digest for text in texts}
    assert len(digests) == len(texts)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("version = 3", "", "version is missing; set it"),
        ("version = 3", "version = 0", "version is an integer, 0; an integer in 1.."),
        ("version = 3", "version = true", "version is a boolean, True; an integer"),
        ("version = 3", "version = 1979-05-27", "version is a date or time, "),
        ("[surfaces", "[surface", "surface is unknown; use one of 'surfaces'"),
        ("surfaces.home", "surfaces.'a/b'", "surface name 'a/b' is invalid; 1..64 letters"),
        ("[surfaces.home]", "[surfaces]\nhome = 3\n[surfaces.x]",
         "surfaces.home is an integer, 3; a table is required"),
        ("diversity", "diversty", "surfaces.home.diversty is unknown; use one of 'diversity',"),
        ('"exclude"', '"hide"', "surfaces.home.seen is a string, 'hide'; 'exclude' or 'repeat' is"),
        ('"exclude"', "[]", "surfaces.home.seen is a list, []; 'exclude' or 'repeat' is allowed"),
        ('["purchase", "cart"]', '"cart"', "seen_kinds is a string, 'cart'; a list of strings is"),
        ('"purchase"', '""', "seen_kinds[0]: the kind '' has 0 bytes; 1..64 are allowed"),
        ('"purchase"', "7", "seen_kinds[0] is an integer, 7; a string is required: quote it"),
        ("seen_days = 90", "seen_days = -1", "seen_days is an integer, -1; an integer in"),
        ("brand = 2", "brand = 0", "home.quotas.brand is an integer, 0; an integer in 1.."),
        ('"maker.name" = 1', "maker.name = 1", 'quote a name with dots: { "maker.name" = 2 }'),
        ('{ brand = 2, "maker.name" = 1 }', str({f"a{n}": 1 for n in range(17)}).replace(":", "="),
         "surfaces.home.quotas has 17 attributes; at most 16 are allowed"),
        ('"sku-2"', '"sku-1"', "pinned[1] is a string, 'sku-1'; it is repeated; remove one"),
        ('"sku-2"', '"sku-9"', "pinned is a string, 'sku-9'; it is blocked, too; remove one"),
        ('"sku-2"', '""', "surfaces.home.pinned[0]: the id is empty"),
        ('["sku-2", "sku-1"]', str([f"i{n}" for n in range(101)]),
         "surfaces.home.pinned has 101 entries; at most 100 are allowed"),
        ("0.2", "1.5", "surfaces.home.diversity is a number, 1.5; a number in 0..1 is allowed"),
        ("0.2", "nan", "surfaces.home.diversity is a number, nan; a number in 0..1 is allowed"),
        ('"released"', '""', "fresh.attribute is a string, ''; the name of an attribute is"),
        (", places = 2", "", "surfaces.home.fresh.places is missing; set it"),
        ("days = 30", "day = 30", "surfaces.home.fresh.day is unknown; use one of 'days', "),
        ("pool = 50", "pool = 101", "pool is an integer, 101; 1..100 is allowed: from places"),
        ("places = 1,", "places = 51,", "pool is an integer, 50; 51..100 is allowed: from pl"),
        ("candidates = 100", "candidates = 10001", "an integer in 1..10000 is allowed"),
        ("version = 3", "version = ", "is not TOML: Invalid value (at line 2, column 11)"),
    ],
)  # fmt: skip
def test_an_error_names_the_key_and_the_allowed_values(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in WHOLE
    path = written(tmp_path, WHOLE.replace(old, new, 1))
    with pytest.raises(SettingsError) as refused:
        read_policies(path)
    assert str(refused.value).startswith(f"policy file {path}")
    assert says in str(refused.value)


def test_a_file_that_cannot_be_read_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml cannot be read: .*; name a readable"):
        read_policies(tmp_path / "absent.toml")
    (tmp_path / "bytes.toml").write_bytes(b"version = 1 # \xff")
    with pytest.raises(SettingsError, match=r"bytes\.toml cannot be read: .*; name a readable"):
        read_policies(tmp_path / "bytes.toml")


def test_a_policy_needs_the_fields_that_its_rules_read() -> None:
    attributes, vector = PayloadField.ATTRIBUTES, PayloadField.VECTOR
    plain = Policy(name="home", version=1)
    assert plain.needs() == set()
    assert plain.needs(0.5) == {vector}
    diverse = Policy(name="home", version=1, diversity=0.5, quotas=(Quota("brand", 1),))
    assert diverse.needs() == {attributes, vector}
    assert diverse.needs(0.0) == {attributes}
    assert Policy(name="a", version=1, fresh=FreshRule("day", 1, 1)).needs() == {attributes}


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.sampled_from(["view", "buy"]))
    ),
    st.booleans(),
    st.sets(st.sampled_from(["view", "buy", "cart"])),
    st.integers(0, 4),
)
def test_seen_items_follow_the_rule(
    raw: list[tuple[str, int, str]], repeat: bool, kinds: set[str], days: int
) -> None:
    policy = Policy(name="home", version=1, seen=SeenRule(repeat, frozenset(kinds), days))
    now_us = 100 * DAY_US
    # Half days, so that some lie exactly on the edge.
    events = [
        UserEvent(item, now_us - halves * DAY_US // 2, kind, None) for item, halves, kind in raw
    ]
    expected = set()
    for item, halves, kind in raw:
        if not repeat and kind in (kinds or {"view", "buy"}) and halves <= (2 * days or 9):
            expected.add(item)
    assert seen_items(policy, events, now_us=now_us) == expected


def test_the_example_of_the_guide_is_valid(tmp_path: Path) -> None:
    example, references = re.findall(r"```toml\n(.*?)```", GUIDE.read_text("utf-8"), re.S)
    policies = read_policies(written(tmp_path, example))
    assert {"home", "item_page", "cart"} <= set(policies.surfaces)
    assert policies.for_surface("home").explore is not None
    policies = read_policies(written(tmp_path, f"version = 1\n{references}"))
    assert policies.for_surface("kids").only is not None


def test_an_event_whose_kind_is_not_known_counts_as_of_each_kind() -> None:
    policy = Policy(name="home", version=1, seen=SeenRule(kinds=frozenset({"purchase"})))
    events = [
        UserEvent(*one, None) for one in [("a", 1, "purchase"), ("b", 1, "view"), ("c", 1, "")]
    ]
    assert seen_items(policy, events, now_us=2) == {"a", "c"}
    repeats = Policy(name="cart", version=1, seen=SeenRule(repeat=True))
    assert not seen_items(repeats, events, now_us=2)
