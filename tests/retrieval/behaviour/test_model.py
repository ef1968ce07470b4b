"""A behaviour model is read as it was written, or the error names the file at fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index_builder.behaviour.table_writer import write_tables
from nearline.errors import SnapshotCorrupt
from nearline.store.manifest_files import list_files
from nearline.store.publication import publish, temporary_snapshot
from nearline.store.snapshot import SCHEMA_VERSION, Store
from nearline.store.snapshot_ids import new_snapshot_id
from nearline.times import DAY_US
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.blend import DEPTH, Blend, WeightedGenerator
from retrieval.behaviour.factors import FactorGenerator, ItemFactors
from retrieval.behaviour.generator_names import COUNTS, POPULAR, REBOUGHT, TRENDING, USER
from retrieval.behaviour.generator_spec import ALL_EVENTS, encode_generator
from retrieval.behaviour.history import History, Recency, UserHistories
from retrieval.behaviour.item_keys import keys_of
from retrieval.behaviour.item_lists import ItemLists, ListGenerator
from retrieval.behaviour.model import BehaviourModel, load_behaviour_model
from retrieval.behaviour.popularity import BuyAgainGenerator, ItemScores, PopularityGenerator
from retrieval.behaviour.shard_tables import ShardTables, read_shard_tables
from retrieval.behaviour.tables import BehaviourTables, read_tables
from retrieval.protocols.candidates import (
    NO_EVENTS,
    CandidatesRequest,
    HistoryRequest,
    KeyedHistory,
)
from retrieval.protocols.snapshot import SnapshotRef
from tests.retrieval.behaviour.dense_scores import spread

_RNG = np.random.default_rng(5)
_VECTORS = _RNG.normal(size=(4, 2)).astype(np.float32)
# ä goes with b and c, b with ä; nothing goes with c and d, and nobody had d.
SESSIONS = ItemLists(
    np.array([0, 1, 1, 1, 3]), np.array([3, 1, 0], np.int32), np.array([2, 0.5, 0.25], np.float32)
)
EASE = ItemLists(
    np.array([0, 0, 2, 2, 2]), np.array([0, 3], np.int32), np.array([1, 0.5], np.float32)
)
TABLES = BehaviourTables(
    ["b", "c", "d", "ä"],
    np.array([3, 1, 0, 2]),
    {
        "popularity": np.array([3, 1, 0, 2.5], np.float32),
        "popularity_15d": np.array([0.5, 1, 0, 2], np.float32),
    },
    {"session": SESSIONS, "ease": EASE},
    ItemFactors(_VECTORS, np.eye(2) * 3, 5.0, 2.0),
    UserHistories(
        ["u1", "u2", "ü"],
        np.array([0, 2, 2 + 1, 6]),
        np.array([0, 1, 3, 1, 3, 0], np.int32),
        np.array([5, 4, 9, 7, 7, 1]) * DAY_US,
        np.array([1, 2, 1, 0.5, 1, 1], np.float32),
    ),
)
PARTS = [
    ("session", "session", WeightedGenerator(ListGenerator(SESSIONS, Recency(3.0, 0.1), 20), 2.0)),
    ("ease", "ease", WeightedGenerator(ListGenerator(EASE, Recency(days=60.0), ALL_EVENTS))),
    ("als", "factors", WeightedGenerator(FactorGenerator(TABLES.factors, Recency(8.0), 5), 0.5)),
    (
        "popular",
        "popularity",
        WeightedGenerator(PopularityGenerator(ItemScores(TABLES.popularity["popularity"]))),
    ),
    (
        "buy_again",
        "popularity_15d",
        WeightedGenerator(
            BuyAgainGenerator(ItemScores(TABLES.popularity["popularity_15d"]), Recency(5.0), 0.6)
        ),
    ),
]


def card_of() -> snapshot_pb2.BehaviourCard:
    card = snapshot_pb2.BehaviourCard(factors_id="f00d", kind_weights={"view": 0.5})
    for repeats in (False, True):
        blend = card.blends.add(repeats=repeats)
        for model, table, (generator, weight) in PARTS:
            part = encode_generator(generator)
            part.model, part.table, part.weight = model, table, weight
            blend.parts.append(part)
    return card


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


Change = Callable[[Path, snapshot_pb2.BehaviourCard], None]


def published(store: Store, change: Change | None = None) -> SnapshotRef:
    """Publishes the tables; a change comes before files are hashed, so that only shapes tell."""
    snapshot_id = new_snapshot_id()
    with temporary_snapshot(store, "default", snapshot_id) as folder:
        write_tables(TABLES, folder)
        card = card_of()
        if change is not None:
            change(folder / "behaviour", card)
        manifest = snapshot_pb2.Manifest(
            schema_version=SCHEMA_VERSION,
            snapshot_id=snapshot_id,
            collection="default",
            behaviour=card,
            files=list_files(folder),
        )
        publish(store, folder, manifest)
    return SnapshotRef(collection="default", epoch=1, manifest=manifest)


def loaded(store: Store, *, local: bool = True) -> BehaviourModel:
    found = load_behaviour_model(store, published(store), local=local)
    assert found is not None
    return found


def read(store: Store, change: Change | None = None) -> BehaviourTables:
    return read_tables(store, published(store, change).manifest)


def rows(history: History | None) -> list[tuple[int, int, float]]:
    assert history is not None
    return list(zip(*(column.tolist() for column in history[:3]), strict=True))


def test_a_manifest_without_discounts_for_popularity_has_none(store: Store) -> None:
    found = loaded(store)
    assert found.similar_debias == found.debias(repeats=True) == found.debias(repeats=False) == 0

    def add(_: Path, card: snapshot_pb2.BehaviourCard) -> None:
        card.similar_debias.value, card.blends[0].debias.value = 0.5, 0.25

    found = load_behaviour_model(store, published(store, add))  # type: ignore[assignment]
    assert found.similar_debias == 0.5
    assert (found.debias(repeats=False), found.debias(repeats=True)) == (0.25, 0)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_discount_out_of_range_is_refused(store: Store, value: float) -> None:
    def add(_: Path, card: snapshot_pb2.BehaviourCard) -> None:
        card.blends[1].debias.value = value

    with pytest.raises(SnapshotCorrupt, match=r"a discount for popularity of .*; 0\.\.1 is"):
        load_behaviour_model(store, published(store, add))


def test_tables_survive_a_round_trip(store: Store) -> None:
    model, found = loaded(store), read(store)
    assert dict(model.kind_weights) == {"view": 0.5}
    assert list(found.ids) == ["b", "c", "d", "ä"]
    assert found.interactions.tolist() == [3, 1, 0, 2]
    assert found.popularity["popularity"].tolist() == [3, 1, 0, 2.5]
    histories = found.histories
    assert list(histories.users) == ["u1", "u2", "ü"]
    assert rows(histories.of("u1")) == [(0, 5 * DAY_US, 1), (1, 4 * DAY_US, 2)]
    assert rows(histories.of("u2")) == [(3, 9 * DAY_US, 1)]
    assert [item for item, *_ in rows(histories.of("ü"))] == [1, 3, 0]
    assert [histories.of(one) for one in ("u", "u3", "", "\U0010ffff")] == [None] * 4
    assert np.array_equal(found.factors.vectors, _VECTORS)
    assert found.factors.gram.tolist() == [[3, 0], [0, 3]]
    assert (found.factors.regularisation, found.factors.alpha) == (5.0, 2.0)


@pytest.mark.parametrize("local", [False, True])
def test_decoded_generators_score_like_the_encoded_ones(store: Store, local: bool) -> None:
    model, shard = loaded(store, local=local), loaded(store).local
    assert shard is not None
    trained = TABLES.interactions > 0
    for user in TABLES.histories.users:
        stored = shard.history(HistoryRequest(user))
        history = KeyedHistory(keys_of(stored.ids), stored.time_us, stored.weight)
        events = TABLES.histories.of(user)
        assert events is not None
        for repeats in (False, True):
            found = shard.find(CandidatesRequest([USER], history, DEPTH, repeats=repeats))
            assert list(found.ids_of(found.numbers)) == [TABLES.ids[one] for one in found.numbers]
            for (*_, expected), scored in zip(PARTS, found.scored, strict=True):
                shown = trained.copy()
                shown[events.items] &= repeats
                made = expected.generator.best(events, shown, DEPTH)
                assert np.array_equal(scored.rows, made.rows)
                assert scored.scores == pytest.approx(made.scores)
            whole = Blend([weighted for *_, weighted in PARTS], repeats).best(events, trained, 4)
            scored = model.score_user(found, history, repeats=repeats)
            assert spread(scored, 4) == pytest.approx(spread(whole, 4))


def test_a_snapshot_without_interactions_has_no_model(store: Store) -> None:
    snapshot = published(store)
    snapshot.manifest.ClearField("behaviour")
    assert load_behaviour_model(store, snapshot) is None


def test_statistics_missing_from_an_older_build_are_unknown(store: Store) -> None:
    shard = loaded(store).local
    assert shard is not None
    trending, counts = (
        shard.find(CandidatesRequest([name], NO_EVENTS, 4)) for name in (TRENDING, COUNTS)
    )
    assert spread(trending.scored[0], 4).tolist() == [3, 1, 0, 2.5]
    assert spread(counts.scored[0], 4).tolist() == [3, 1, 0, 2.5]
    assert counts.total_count == 6.5


def _newer(folder: Path, card: snapshot_pb2.BehaviourCard) -> None:
    card.popularity_table = "popularity_15d"
    for name, values in (
        ("trending", [1, 2, 0, 3]),
        ("repeat_rate", [0.5, 1, 0, 0.25]),
        ("repeat_days", [7, 0, 0, 30.5]),
    ):
        np.save(folder / f"{name}.npy", np.array(values, np.float32))


def test_tables_of_items_and_the_popularity_that_was_chosen_are_read(store: Store) -> None:
    found = load_behaviour_model(store, published(store, _newer), local=True)
    assert found is not None and found.local is not None
    names = (POPULAR, COUNTS, TRENDING, REBOUGHT)
    request = CandidatesRequest(names, NO_EVENTS, 4)
    popular, counts, trending, rebought = found.local.find(request).scored
    assert spread(popular, 4).tolist() == [0.5, 1, 0, 2]
    assert spread(counts, 4).tolist() == [3, 1, 0, 2.5]
    assert spread(trending, 4).tolist() == [1, 2, 0, 3]
    assert spread(rebought, 4).tolist() == [0.25, 1, 0, 0.5]
    tables = read(store, _newer)
    assert tables.popularity["repeat_days"].tolist() == [7, 0, 0, 30.5]


def test_no_file_can_run_code(store: Store) -> None:
    snapshot = published(store)
    folder = store.snapshot_folder("default", snapshot.snapshot_id) / "behaviour"
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    of_shard = [
        *("users.arrow", "numbers.npy"),
        *(f"{lists}.{part}.npy" for lists in ("ease", "session") for part in ItemLists._fields),
        *(f"histories.{part}.npy" for part in ("starts", "items", "time_us", "weight")),
    ]
    assert names == sorted(
        [
            *("items.arrow", "popularity_15d.npy", "keys.npy", "key_numbers.npy"),
            *("factors.npy", "factors.gram.npy", "factors.options.npy"),
            *(f"000/{name}" for name in of_shard),
        ]
    )
    for name in names:
        if name.endswith(".npy"):
            assert not np.load(folder / name, allow_pickle=False).dtype.hasobject


def read_one_shard(store: Store, manifest: snapshot_pb2.Manifest) -> ShardTables:
    return read_shard_tables(store, manifest, 0, 1)


def _save(name: str, array: object) -> Change:
    return lambda folder, card: np.save(folder / name, np.asarray(array))


def _rename_table(folder: Path, card: snapshot_pb2.BehaviourCard) -> None:
    card.blends[0].parts[1].table = "../ease"


def _rename_popularity(folder: Path, card: snapshot_pb2.BehaviourCard) -> None:
    card.popularity_table = "../x"


def _lose_blend(folder: Path, card: snapshot_pb2.BehaviourCard) -> None:
    del card.blends[1:]


@pytest.mark.parametrize("read", [read_tables, read_one_shard])
@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda folder, card: (folder / "000/ease.others.npy").unlink(), "ease.others.npy"),
        (lambda folder, card: (folder / "000/users.arrow").write_bytes(b"ARROW1"), "users.arrow"),
        (lambda folder, card: (folder / "items.arrow").unlink(), "items.arrow"),
        (lambda folder, card: (folder / "factors.npy").write_bytes(b"x"), "factors.npy"),
        (_save("factors.npy", _VECTORS[:3]), r"factors.npy holds float32 of shape \(3, 2\)"),
        (_save("factors.npy", _VECTORS.astype(float)), "float32 of shape"),
        (_save("factors.gram.npy", np.eye(3)), "factors.gram.npy"),
        (_save("popularity_15d.npy", _VECTORS), "popularity_15d.npy"),
        (_save("trending.npy", np.ones(3, np.float32)), r"trending.npy holds float32 of shape"),
        (_save("trending.npy", np.full(4, np.nan, np.float32)), "trending.npy has values from nan"),
        (_save("repeat_rate.npy", np.array([0, 1, 2, 0], np.float32)), "values of 0..1 are allow"),
        (_save("repeat_days.npy", np.full(4, -1, np.float32)), "repeat_days.npy has values from -"),
        (_rename_popularity, "names a table '../x'"),
        (_save("000/session.others.npy", np.array([3, 1, 4], np.int32)), "item numbers 1 to 4"),
        (_save("000/session.scores.npy", np.ones(2, np.float32)), "session.scores.npy"),
        (_save("000/session.starts.npy", np.array([0, 2, 1, 3, 3])), "does not ascend"),
        (_save("000/histories.items.npy", np.array([0, 1, 3, 1, 3, -1], np.int32)), "-1 to 3"),
        (_save("000/histories.starts.npy", np.array([0, 2, 6])), "histories.starts.npy"),
        (
            _save("factors.npy", np.full((4, 2), np.nan, np.float32)),
            "factors.npy has .* not finite",
        ),
        (_save("factors.gram.npy", np.full((2, 2), np.inf)), "factors.gram.npy has .* not finite"),
        (_save("000/histories.weight.npy", np.zeros(6, np.float32)), "weight.npy has weights that"),
        (lambda folder, card: (folder / "factors.npy").write_bytes(b""), "factors.npy cannot be"),
        (_save("000/numbers.npy", np.array([0, 2, 1, 3], np.int32)), "numbers.npy does not ascend"),
        (_save("000/numbers.npy", np.array([0, 1, 2, 4], np.int32)), "item numbers 0 to 4"),
        (_rename_table, "names a table '../ease'"),
    ],
)
def test_files_that_do_not_fit_are_named(
    store: Store, change: Change, wrong: str, read: Callable[[Store, Any], object]
) -> None:
    with pytest.raises(SnapshotCorrupt, match=wrong) as raised:
        read(store, published(store, change).manifest)
    assert "rebuild the snapshot" in raised.value.message


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (
            _save("key_numbers.npy", np.array([0, 1, 2, 4], np.int32)),
            "key_numbers.npy has item numbers 0 to 4",
        ),
        (_save("key_numbers.npy", np.array([0, 1, 2, 2], np.int32)), "has a number twice"),
        (_save("keys.npy", np.array([4, 3, 2, 1], np.uint64)), "keys.npy does not ascend"),
    ],
)
def test_a_shard_refuses_keys_that_do_not_name_each_item_once(
    store: Store, change: Change, wrong: str
) -> None:
    with pytest.raises(SnapshotCorrupt, match=wrong):
        read_one_shard(store, published(store, change).manifest)


@pytest.mark.parametrize("local", [False, True])
def test_a_manifest_without_a_blend_is_refused(store: Store, local: bool) -> None:
    with pytest.raises(SnapshotCorrupt, match=r"blends for repeats \[False\].*rebuild"):
        load_behaviour_model(store, published(store, _lose_blend), local=local)


def test_a_file_that_changed_on_disk_is_named(store: Store) -> None:
    snapshot = published(store)
    folder = store.snapshot_folder("default", snapshot.snapshot_id)
    path = folder / "behaviour" / "factors.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(SnapshotCorrupt, match=r"behaviour/factors\.npy"):
        load_behaviour_model(store, snapshot, local=True)
