"""The ordering rule, against a model that keeps every event and replays them in order of time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from index_builder.lineage.change_order import (
    AttributePatch,
    DocumentChanges,
    DocumentContent,
    DocumentState,
    ImportedDocument,
    apply_import,
    decode_patches,
    encode_patches,
)
from nearline.contract import AttributeValue
from retrieval.changelog.records import Change, ChangeEntry, ChangeKind
from tests.index_builder.lineage.history_model import Event, Model
from tests.scale import scaled

_NAMES = st.sampled_from(["a", "b"])


_CHANGES: st.SearchStrategy[tuple[str, object]] = st.one_of(
    st.just(("upsert", {})),
    st.tuples(st.just("upsert"), st.dictionaries(_NAMES, st.integers(1, 9))),
    st.just(("delete", {})),
    st.tuples(st.just("set"), st.dictionaries(_NAMES, st.none() | st.integers(1, 9), min_size=1)),
)
_BUILDS = st.tuples(
    st.just("build"), st.tuples(st.booleans(), st.booleans(), st.integers(1, 30), st.booleans())
)


@settings(deadline=None, max_examples=scaled(300, nightly=3_000))
@given(st.lists(st.one_of(_CHANGES, _BUILDS), max_size=14))
def test_a_document_equals_the_replay_of_its_history(
    steps: list[tuple[str, object]],
) -> None:
    model = Model()
    state: DocumentState | None = None
    changes = DocumentChanges()
    position = 0
    clock = 1
    for number, (what, given_) in enumerate([*steps, ("build", (True, False, 0, False))]):
        clock += 2
        if what == "build":
            assert isinstance(given_, tuple)
            keep_absent, has_row, place, saved = given_
            # At even times, so that a change is never at the same time as an import.
            place = min(2 * place, clock - 1 if clock % 2 else clock)
            row = f"row {number}" if has_row else None
            found = (
                ImportedDocument(DocumentContent(row, row, {"from": "import"}), place)
                if row
                else None
            )
            if changes.version:
                state = changes.apply_to(state, _content)
                changes = DocumentChanges()
            result = apply_import(state, found, keep_absent=keep_absent, absent_us=place)
            state = _as_stored(result) if saved else result
            model.build(row, place, keep_absent)
            assert _shown(state) == model.state()
            continue
        alive = model.state() is not None
        if not alive and what != "upsert":
            continue  # The log does not take what changes nothing.
        assert isinstance(given_, dict)
        position += 1
        text = f"text {number}"
        kind = {
            "upsert": ChangeKind.UPSERT,
            "delete": ChangeKind.DELETE,
            "set": ChangeKind.ATTRIBUTES,
        }[what]
        change = Change(document_id="d", kind=kind, text=text, attributes=given_)
        changes = changes.followed_by(ChangeEntry(0, position, clock, change))
        model.events.append(
            Event(clock, text if what == "upsert" else None, given_, only=what == "set")
        )


def _content(entry: ChangeEntry) -> DocumentContent:
    return DocumentContent("", entry.change.text, entry.change.attributes)


def _shown(state: DocumentState | None) -> tuple[str, dict[str, AttributeValue]] | None:
    if state is None or state.content is None:
        return None
    return state.content.text, dict(state.attributes)


def _as_stored(state: DocumentState | None) -> DocumentState | None:
    """Returns a state as stored in a snapshot: with patches applied, and their list."""
    if state is None or state.content is None:
        return state
    content = DocumentContent("", state.content.text, state.attributes)
    patches = decode_patches(encode_patches(state.patches))
    return DocumentState(content, state.time_us, state.imported, patches, state.version)


_ROW = ImportedDocument(DocumentContent("", "row", {}), 50)


@pytest.mark.parametrize(
    ("state", "keep_absent", "text"),
    [
        (None, False, "row"),
        (DocumentState(DocumentContent("", "old", {}), 10, True), False, "row"),
        (DocumentState(DocumentContent("", "old", {}), 50, True), True, "row"),
        (DocumentState(DocumentContent("", "old", {}), 90, True), False, "row"),
        (DocumentState(DocumentContent("", "old", {}), 90, True), True, "old"),
        (DocumentState(DocumentContent("", "live", {}), 40, False), False, "row"),
        (DocumentState(DocumentContent("", "live", {}), 60, False), False, "live"),
        (DocumentState(None, 40, False), False, "row"),
        (DocumentState(None, 60, False), True, None),
    ],
)
def test_an_import_at_50_with_the_document(
    state: DocumentState | None, keep_absent: bool, text: str | None
) -> None:
    result = apply_import(state, _ROW, keep_absent=keep_absent)
    assert result is not None
    assert (result.content.text if result.content else None) == text


@pytest.mark.parametrize(
    ("state", "keep_absent", "stays"),
    [
        (DocumentState(DocumentContent("", "old", {}), 90, True), False, False),
        (
            DocumentState(DocumentContent("", "old", {}), 10, True, {"a": AttributePatch(60, 1)}),
            False,
            True,
        ),
        (
            DocumentState(DocumentContent("", "old", {}), 10, True, {"a": AttributePatch(40, 1)}),
            False,
            False,
        ),
        (DocumentState(DocumentContent("", "live", {}), 40, False), False, False),
        (DocumentState(DocumentContent("", "live", {}), 60, False), False, True),
        (DocumentState(DocumentContent("", "old", {}), 10, True), True, True),
        (DocumentState(None, 10, False), False, True),
    ],
)
def test_an_import_at_50_without_the_document(
    state: DocumentState, keep_absent: bool, stays: bool
) -> None:
    result = apply_import(state, None, keep_absent=keep_absent, absent_us=50)
    assert (result is not None) == stays


def test_changes_after_a_snapshot_are_ordered_after_its_imports() -> None:
    change = Change(document_id="d", kind=ChangeKind.UPSERT, text="by a slow clock")
    changes = DocumentChanges().followed_by(ChangeEntry(0, 1, 40, change))
    state = changes.not_before(51).apply_to(None, _content)
    result = apply_import(state, _ROW, keep_absent=False)
    assert result is not None and result.content is not None
    assert (result.content.text, result.time_us) == ("by a slow clock", 51)


def test_attributes_of_earlier_snapshots_stay_on_an_older_import() -> None:
    state: DocumentState | None = DocumentState(DocumentContent("", "old", {}), 10, True)
    # Each is the only change since the snapshot before it.
    for position, name in enumerate("ab", 1):
        change = Change(document_id="d", kind=ChangeKind.ATTRIBUTES, attributes={name: position})
        changes = DocumentChanges().followed_by(ChangeEntry(0, position, 60 + position, change))
        compacted = apply_import(changes.apply_to(state, _content), None, keep_absent=True)
        state = _as_stored(compacted)
    assert _shown(apply_import(state, _ROW, keep_absent=False)) == ("row", {"a": 1, "b": 2})


def test_patches_survive_a_round_trip() -> None:
    patches = {
        "a": AttributePatch(3, ["x", "y"]),
        "b": AttributePatch(4, None),
        "c": AttributePatch(5, 1.5),
    }
    assert decode_patches(encode_patches(patches)) == patches
    assert encode_patches({}) == "" and decode_patches("") == {}
