"""A published ranker reorders the best of a blend, and a model that does not fit is rejected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index_builder.behaviour.id_remap import map_ids, remap_tables
from index_builder.behaviour.table_writer import write_tables
from nearline.errors import SnapshotCorrupt
from nearline.store.manifest_files import list_files
from nearline.store.publication import publish, temporary_snapshot
from nearline.store.snapshot import SCHEMA_VERSION, Store
from nearline.store.snapshot_ids import new_snapshot_id
from nearline.times import DAY_US
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.blend import DEPTH
from retrieval.behaviour.factors import ItemFactors
from retrieval.behaviour.features import (
    FIRST_DAY,
    ITEM_TABLES,
    FeatureExtractor,
    FeatureSpec,
    ItemStatistics,
    feature_names,
)
from retrieval.behaviour.generator_names import USER
from retrieval.behaviour.history import History, UserHistories
from retrieval.behaviour.item_keys import keys_of
from retrieval.behaviour.item_lists import ItemLists
from retrieval.behaviour.model import BehaviourModel, build_behaviour_model, load_behaviour_model
from retrieval.behaviour.popularity import ItemScores, PopularityGenerator
from retrieval.behaviour.ranker import Ranker, RankerGenerator
from retrieval.behaviour.tables import BehaviourTables
from retrieval.behaviour.trees import read_trees
from retrieval.protocols.candidates import CandidatesRequest, HistoryRequest
from retrieval.protocols.snapshot import SnapshotRef
from retrieval.recommend.ranking import HISTORY, rank_for_user
from retrieval.recommend.user_profile import build_profile, history_of_items
from tests.retrieval.behaviour.dense_scores import spread
from tests.retrieval.recommend.small_model import ranking_query

IDS = ["a", "b", "c", "d", "e"]
# With a go b, c and d, in this order; nothing goes with e.
GOES = ItemLists(
    np.array([0, 3, 3, 3, 3, 3]), np.array([1, 2, 3], np.int32), np.array([3, 2, 1], np.float32)
)
NAMES = feature_names(["session_tau_5"], repeats=False)


def trees(feature: str, threshold: float, names: tuple[str, ...] = NAMES) -> str:
    """One tree: -1 for what is above, 1 for the others."""
    return (
        f"tree\nnum_class=1\nnum_tree_per_iteration=1\nfeature_names={' '.join(names)}\n\n"
        f"Tree=0\nnum_leaves=2\nsplit_feature={names.index(feature)}\nthreshold={threshold}\n"
        "decision_type=2\nleft_child=-1\nright_child=-2\nleaf_value=1 -1\n\nend of trees\n"
    )


# What is young comes first: d is 10 days old, others are 96 and more.
def tables() -> BehaviourTables:
    of_items = {name: np.ones(5, np.float32) for name in ITEM_TABLES}
    of_items[FIRST_DAY] = np.array([1, 2, 3, 90, 4], np.float32)
    return BehaviourTables(
        IDS,
        np.ones(5, np.int64),
        of_items,
        {"session": GOES},
        ItemFactors(np.eye(5, dtype=np.float32), np.eye(5), 1.0, 2.0),
        UserHistories(
            ["u"],
            np.array([0, 1]),
            np.array([0], np.int32),
            np.array([100 * DAY_US]),
            np.ones(1, np.float32),
        ),
        {False: trees("item_age", 50)},
    )


def card_of() -> snapshot_pb2.BehaviourCard:
    part = snapshot_pb2.BlendPart(
        model="session", settings="tau=5", table="session", weight=1, tau=5
    )
    ranker = snapshot_pb2.RankerCard(
        kept=True, sources=[part], features=NAMES, blend_weight=0.5, weight=1
    )
    return snapshot_pb2.BehaviourCard(
        blends=[
            snapshot_pb2.BlendCard(repeats=False, parts=[part], ranker=ranker),
            snapshot_pb2.BlendCard(repeats=True, parts=[part]),
        ]
    )


async def order(learned: BehaviourModel, *, repeats: bool = False, without: str = "a") -> str:
    assert learned.local is not None
    history = build_profile(trained=learned.local.history(HistoryRequest("u"))).history
    query = ranking_query(learned, depth=2, hidden=frozenset(without), history=history)
    ranking = await rank_for_user(query, repeats=repeats)
    assert ranking is not None and ranking.source == HISTORY
    blocks = [block async for block in ranking.blocks()]
    assert (np.diff(np.concatenate([block.scores for block in blocks])) <= 0).all()
    return "".join(item_id for block in blocks for item_id in block.ids)


def published(store: Store, change: Callable[[Path], None] | None = None) -> SnapshotRef:
    snapshot_id = new_snapshot_id()
    with temporary_snapshot(store, "default", snapshot_id) as folder:
        write_tables(tables(), folder)
        if change is not None:
            change(folder / "behaviour")
        manifest = snapshot_pb2.Manifest(
            schema_version=SCHEMA_VERSION,
            snapshot_id=snapshot_id,
            collection="default",
            behaviour=card_of(),
            files=list_files(folder),
        )
        publish(store, folder, manifest)
    return SnapshotRef(collection="default", epoch=1, manifest=manifest)


async def test_the_best_candidates_are_reranked_above_the_rest() -> None:
    learned = build_behaviour_model(card_of(), tables())
    # Half of 1.22, 0, -1.22 for b, c and d by the blend, and -0.71, -0.71, 1.41 by the tree.
    assert await order(learned) == "dbce"
    assert await order(learned, repeats=True) == "bcde"
    assert await order(learned, without="ab") == "dce"
    assert await order(learned, without="abcde") == ""


def test_every_candidate_is_ranked_above_all_other_items() -> None:
    scores = np.arange(200, 0, -1).astype(np.float32)
    spec = FeatureSpec(["popularity"], [1.0], True)
    popular = PopularityGenerator(ItemScores(scores))
    statistics = ItemStatistics.of_tables({"popularity": scores})
    extractor = FeatureExtractor(spec, [popular], statistics)
    ranker = Ranker(spec, read_trees(trees("item_age", 50, spec.names)), 1.0, 1.0)
    history = History(np.array([0], np.int32), np.array([DAY_US]), np.ones(1, np.float32))
    allowed = np.arange(200) != 3
    candidates = extractor.extract(history, allowed).rows
    assert candidates.tolist() == [0, 1, 2, *range(4, 101)]
    ranked = spread(RankerGenerator(ranker, extractor).best(history, allowed, 200), 200)
    others = np.setdiff1d(np.flatnonzero(allowed), candidates)
    assert ranked[others].max() > 0
    assert ranked[candidates].min() > ranked[others].max()


def test_reasons_come_from_the_generators_of_the_ranker() -> None:
    learned = build_behaviour_model(card_of(), tables())
    assert learned.local is not None
    history = history_of_items(["a"])
    for repeats in (False, True):
        request = CandidatesRequest(
            [USER], history, 0, repeats=repeats, reasons_for=keys_of(["d", "x"])
        )
        assert learned.local.find(request).reasons == [("because:a",), ()]


async def test_without_scored_items_the_nearest_by_factors_are_ranked() -> None:
    found = tables()
    lists = {"session": GOES._replace(starts=np.array([0, 0, 0, 0, 0, 3]))}
    learned = build_behaviour_model(card_of(), found._replace(lists=lists))
    assert learned.local is not None
    history = history_of_items(["a"])
    candidates = learned.local.find(CandidatesRequest([USER], history, DEPTH))
    assert not len(learned.score_user(candidates, history, repeats=False).rows)
    # All other factors are orthogonal to those of a.
    assert await order(learned) == "bcde"


@pytest.mark.parametrize("local", [False, True])
async def test_a_ranker_survives_publication(tmp_path: Path, local: bool) -> None:
    store = Store(tmp_path)
    snapshot = published(store)
    found = load_behaviour_model(store, snapshot, local=local)
    assert found is not None and (found.local is not None) == local
    files = {one.path for one in snapshot.manifest.files}
    assert "behaviour/ranker_no_repeats.txt" in files
    assert "behaviour/ranker_repeats.txt" not in files
    made = build_behaviour_model(card_of(), tables())
    served = replace(found, local=found.local or made.local)
    for repeats in (False, True):
        assert await order(served, repeats=repeats) == await order(made, repeats=repeats)


async def test_other_documents_keep_the_ranker() -> None:
    ids = ["0", *IDS]
    after = build_behaviour_model(card_of(), remap_tables(tables(), map_ids(IDS, ids), ids))
    before = build_behaviour_model(card_of(), tables())
    assert (await order(after)).replace("0", "") == await order(before)


def _write(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "ranker_no_repeats.txt").write_text(text, "utf-8")

    return change


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda folder: (folder / "ranker_no_repeats.txt").unlink(), "ranker_no_repeats.txt"),
        (lambda folder: (folder / "ranker_no_repeats.txt").write_bytes(b"\xff"), "cannot be read"),
        (_write("tree"), "without repeats cannot be read: it is not a LightGBM model"),
        (_write(trees("item_age", 50)[:-30]), "cannot be read"),
        (_write(trees("item_age", 50, NAMES[:-1])), "idle_days.*the version that built it"),
        (_write(trees("item_age", 50, NAMES[::-1])), "not in all of them: none"),
        (lambda folder: (folder / f"{FIRST_DAY}.npy").unlink(), "first_day.npy"),
    ],
)
def test_errors_name_the_file_that_does_not_fit(
    tmp_path: Path, change: Callable[[Path], None], wrong: str
) -> None:
    store = Store(tmp_path)
    with pytest.raises(SnapshotCorrupt, match=wrong) as raised:
        load_behaviour_model(store, published(store, change), local=True)
    assert "rebuild the snapshot" in raised.value.message


def test_a_file_that_changed_on_disk_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot = published(store)
    folder = store.snapshot_folder("default", snapshot.snapshot_id)
    path = folder / "behaviour" / "ranker_no_repeats.txt"
    path.write_text(path.read_text("utf-8").replace("=1 -1", "=1 -2"), "utf-8")
    with pytest.raises(SnapshotCorrupt, match=r"behaviour/ranker_no_repeats\.txt"):
        load_behaviour_model(store, snapshot)
