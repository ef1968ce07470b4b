"""A catalogue in which the country decides taste: users and visitors get the lists of theirs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from index_builder.interactions.records import Interactions
from index_builder.options.build_options import BuildOptions
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.contract import Attributes, Audience, RecommendOptions
from nearline.errors import InvalidRequest
from nearline.store.snapshot import Store
from nearline.times import DAY_US
from retrieval.behaviour.tables import read_tables
from retrieval.protocols.snapshot import read_current_snapshots
from retrieval.recommend.personal_lists import PersonalLists
from retrieval.recommend.policies import default_policies
from retrieval.recommend.policy_file import parse_policies
from retrieval.recommend.service import RecommendationService
from retrieval.users.codec import pack_attributes, unpack_attributes
from retrieval.users.records import EMPTY_STATE, StoredState, UserState
from tests.retrieval.recommend.served_lists import served_lists

COUNTRIES, EACH, USERS = ("DE", "FR", "IT"), 8, 240
IDS = [f"{country}{at}" for country in COUNTRIES for at in range(EACH)]
POLICIES = parse_policies(
    """
    version = 1
    [surfaces.popular]
    from = "popular"
    [surfaces.legal]
    only = "origin = $user.country OR NOT origin EXISTS"
    [surfaces.grown]
    only = "min_age <= $user.age AND phone != $request.device"
    """,
    default_policies(),
)


def shopping(events: int = 6) -> tuple[Interactions, Mapping[str, Attributes]]:
    """Returns what users had, mostly of their own country, and where they live.

    Half of the users are of DE, so the items of DE are the most popular.
    """
    rng = np.random.default_rng(7)
    users = [f"u{at:03}" for at in range(USERS)]
    country = np.array([0, 0, 1, 2])[np.arange(USERS) % 4]
    user = np.repeat(np.arange(USERS), events)
    at_home = rng.random(len(user)) < 0.9
    of = np.where(at_home, country[user], rng.integers(0, 3, len(user)))
    item = of * EACH + rng.integers(0, EACH, len(user))
    times = np.tile(np.arange(events), USERS) * DAY_US
    rows = Interactions(
        users, IDS, user.astype(np.int32), item.astype(np.int32), times, np.ones(len(user), "f4")
    )
    return rows, {
        one: {"country": COUNTRIES[country[at]], "noise": at % 7} for at, one in enumerate(users)
    }


class States:
    """Users who have attributes and no interactions."""

    def __init__(self, attributes: Mapping[str, Attributes]) -> None:
        self.attributes = attributes

    async def fetch(self, collection: str, user_id: str, session_id: str) -> StoredState:
        return StoredState(b"", b"", 0, pack_attributes(self.attributes.get(user_id, {})))

    async def decode(self, collection: str, stored: StoredState) -> UserState:
        return EMPTY_STATE._replace(attributes=unpack_attributes(stored.attributes))


NEW: Mapping[str, Attributes] = {
    "de": {"country": "DE"},
    "fr": {"country": "FR", "age": 12},
    "it": {"country": "IT", "noise": 3, "age": 20},
    "odd": {"country": "ZZ", "shoe": 44, "age": "old"},
    "nothing": {},
}


async def build(folder: Path, attributes: Mapping[str, Attributes]) -> Store:
    """Builds two shards of the catalogue. attributes: Of the users in training."""
    learning = TrainingOptions(interactions=shopping()[0], attributes=attributes)
    options = BuildOptions(store=str(folder), shards=2, lexical=False, training=learning)
    vectors = np.eye(len(IDS), dtype=np.float32)
    items = [
        c.Item(
            id=one,
            title=one,
            vector=vectors[at],
            attributes={
                **({"origin": one[:2]} if at % EACH else {}),
                "min_age": 18 if at % 2 else 0,
                "phone": "phone" if at % 3 else "desktop",
            },
        )
        for at, one in enumerate(IDS)
    ]
    await build_snapshot(items, options)
    return Store(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="store")
async def give_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Returns a store of models that were trained with attributes; no test changes it."""
    return await build(tmp_path_factory.mktemp("store"), shopping()[1])


@contextlib.asynccontextmanager
async def serving(
    store: Store, users: Mapping[str, Attributes] = NEW
) -> AsyncIterator[RecommendationService]:
    """Yields a service."""
    states, personal = States(users), PersonalLists({})
    async with served_lists(store, POLICIES, states=states, personal=personal) as service:
        yield service


async def listed(
    service: RecommendationService,
    user: str = "",
    surface: str = "home",
    n: int = EACH,
    **context: str,
) -> Sequence[str]:
    audience = Audience(user_id=user, surface=surface, context=context)
    for _ in range(2):  # The second time, it may come from a cache.
        reply = await service.recommend(audience, RecommendOptions(n=n))
    return [one.hit.id for one in reply.recommendations]


def share(ids: Sequence[str], country: str) -> float:
    return sum(one.startswith(country) for one in ids) / len(ids)


async def test_new_users_get_what_is_popular_in_their_country(store: Store) -> None:
    async with serving(store) as service:
        popular = await listed(service)
        assert share(popular, "DE") > 0.9
        for country in COUNTRIES:
            own = await listed(service, country.lower())
            assert share(own, country) == 1.0
            # So do visitors of whom only the request knows where they are.
            assert await listed(service, country=country) == own
        # The moment precedes what is known about the user.
        assert share(await listed(service, "de", "home", country="IT"), "IT") == 1.0
        # A surface of popular items is the same for everyone.
        assert await listed(service, "it", "popular") == popular


async def test_unknown_values_do_no_harm(store: Store, tmp_path: Path) -> None:
    async with serving(store) as service:
        plain = {one: await listed(service, "", one, 24) for one in ("home", "popular")}
        assert all(len(one) == 24 for one in plain.values())
        for surface, same in plain.items():
            for user in ("odd", "nothing", "stranger"):
                assert await listed(service, user, surface, 24) == same
            assert await listed(service, "odd", surface, 24, device="phone", country="") == same
            # Whoever is in a segment gets as many items.
            assert sorted(await listed(service, "fr", surface, 24)) == sorted(same)
    # Without attributes in training, the same lists come of the same models.
    async with serving(await build(tmp_path, {})) as service:
        for surface, same in plain.items():
            assert await listed(service, "fr", surface, 24) == same


async def test_rules_refer_to_the_user_and_the_request(store: Store) -> None:
    async with serving(store) as service:
        everything = set(IDS)
        legal = {one for one in IDS if one.startswith("FR") or one.endswith("0")}
        assert set(await listed(service, "fr", "legal", 24)) == legal
        # A country that no item is from: what is sold everywhere.
        assert set(await listed(service, "odd", "legal", 24)) == {"DE0", "FR0", "IT0"}
        for user in ("", "nothing", "stranger"):
            assert set(await listed(service, user, "legal", 24)) == everything
        children = {one for at, one in enumerate(IDS) if at % 2 == 0}
        assert set(await listed(service, "fr", "grown", 24)) == children
        assert set(await listed(service, "it", "grown", 24)) == everything
        # An age that is no number says nothing; a device alone leaves out what does not suit it.
        assert set(await listed(service, "odd", "grown", 24)) == everything
        desktop = {one for at, one in enumerate(IDS) if at % 3 == 0}
        assert set(await listed(service, "", "grown", 24, device="phone")) == desktop
        assert set(await listed(service, "fr", "grown", 24, device="phone")) == children & desktop


async def test_new_attributes_change_the_next_list(store: Store) -> None:
    users = dict(NEW)
    async with serving(store, users) as service:
        assert share(await listed(service, "fr"), "FR") == 1.0
        users["fr"] = {"country": "IT"}
        assert share(await listed(service, "fr"), "IT") == 1.0


async def test_the_tables_of_segments_are_arithmetic_of_the_interactions(store: Store) -> None:
    (snapshot,) = read_current_snapshots(store, ())
    card = snapshot.manifest.behaviour
    # 240 users: 120 of DE, 60 of FR and IT; a seventh, about 34, is too few.
    assert list(card.segments) == ['country="DE"', 'country="FR"', 'country="IT"']
    lifts = read_tables(store, snapshot.manifest).popularity["segment_lifts"]
    rows, attributes = shopping()
    pairs = {(rows.users[u], rows.items[i]) for u, i in zip(rows.user, rows.item, strict=True)}
    french = {pair for pair in pairs if attributes[pair[0]]["country"] == "FR"}
    for item in ("FR1", "DE1"):
        found = sum(one == item for _, one in french)
        expected = len(french) * sum(one == item for _, one in pairs) / len(pairs)
        table = lifts[sorted(IDS).index(item)]
        assert table[1] == pytest.approx(np.log((found + 5) / (expected + 5)), abs=1e-6)


async def test_limits_of_the_context_are_named(store: Store) -> None:
    async with serving(store) as service:
        audience = Audience(context={"place": "x" * 257})
        with pytest.raises(InvalidRequest, match=r"257 bytes; 0\.\.256") as refused:
            await service.recommend(audience)
        assert refused.value.field == "context.place"
