"""Builds, merges and compactions of a collection against a replay of its history."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from index_builder.options.build_options import Mode
from index_builder.pipeline.compaction import compact, compaction_options
from nearline.contract import AttributeValue
from retrieval.changelog.retention import drop_archived_segments, trim_log
from tests.index_builder.embedders import vector_of
from tests.index_builder.lineage.history_model import Event, Model
from tests.index_builder.live_collection import Living
from tests.scale import scaled

_KEYS = ["a", "b", "c", "d"]
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["upsert", "delete", "set"]), st.sampled_from(_KEYS)),
        st.tuples(
            st.sampled_from(["replace", "merge", "compact"]),
            st.tuples(st.sets(st.sampled_from(_KEYS)), st.integers(0, 20)),
        ),
    ),
    min_size=4,
    max_size=9,
)


@settings(deadline=None, max_examples=scaled(6, nightly=60))
# A deletion is remembered after an import that is newer, and hides the row of an older file.
@pytest.mark.long
@example(steps=[("upsert", "a"), ("delete", "a"), ("replace", (set(), 3)), ("replace", ({"a"}, 0))])
@given(steps=_STEPS)
async def test_a_collection_equals_the_replay_of_its_history(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object]]
) -> None:
    living = Living(tmp_path_factory.mktemp("living"), shards=2)
    # One that nothing ever happens to: a collection is never empty.
    await living.build(living.corpus({"stays": "Stays.", "a": "first a"}, 1))
    living.make_log()
    models = {key: Model() for key in _KEYS}
    models["a"].build("first a", 1, True)
    models["a"].events[0].attributes["from"] = "corpus"
    for number, (what, given_) in enumerate([*steps, ("compact", (set(), 0))], start=1):
        living.clock.now = now = 2 * number + 1
        if what in ("upsert", "delete", "set"):
            assert isinstance(given_, str)
            model = models[given_]
            if what == "upsert":
                text = f"text {number}"
                attributes: dict[str, AttributeValue] = {"n": number}
                await living.upsert(given_, text, attributes)
                model.events.append(Event(now, text, attributes))
            elif model.state() is not None:
                if what == "delete":
                    await living.delete(given_)
                    model.events.append(Event(now))
                else:
                    await living.set(given_, {"p": number})
                    model.events.append(Event(now, attributes={"p": number}, only=True))
            continue
        assert isinstance(given_, tuple)
        keys, place = given_
        if what == "compact":
            await compact(compaction_options(living.options), living.log, living.embedder)
            for model in models.values():
                model.build(None, 0, True)
        else:
            name = f"c{number}"
            rows = {key: f"row {number} {key}" for key in keys}
            at = min(2 * place, 2 * number)
            path = living.corpus({**rows, "stays": "Stays."}, at, name)
            await living.build(path, mode=Mode(what), shards=2)
            for key, model in models.items():
                model.build(rows.get(key), at, what == "merge")
                for event in model.events:
                    if event.imported and event.text == rows.get(key):
                        event.attributes["from"] = name
        found = {
            key: (row["text"], row["attributes"])
            for key, row in living.rows().items()
            if key != "stays"
        }
        states = {key: model.state() for key, model in models.items()}
        assert found == {key: state for key, state in states.items() if state is not None}
        vectors = living.vectors()
        assert all(np.array_equal(vectors[key], [vector_of(str(found[key][0]))]) for key in found)
        await trim_log(living.store, living.log)
        drop_archived_segments(living.store, "default")
