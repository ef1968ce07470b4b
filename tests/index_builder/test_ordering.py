"""The ordering rule, against a model that keeps every event and replays them in order of time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_builder.lineage.change_order import (
    Changes,
    Content,
    Import,
    Patch,
    Story,
    decode_patches,
    encode_patches,
    settle,
)
from nearline.contract import AttributeValue
from retrieval.changelog.records import Change, Entry, Kind
from tests.index_builder.replayed import Event, Model

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


@settings(deadline=None, max_examples=600)
@given(st.lists(st.one_of(_CHANGES, _BUILDS), max_size=14))
def test_a_document_is_what_a_replay_of_its_history_makes_it(
    steps: list[tuple[str, object]],
) -> None:
    model = Model()
    story: Story | None = None
    changes = Changes()
    position = 0
    clock = 1
    for number, (what, given_) in enumerate([*steps, ("build", (True, False, 0, False))]):
        clock += 2
        if what == "build":
            assert isinstance(given_, tuple)
            keeps_others, has_row, place, saved = given_
            # At even times, so that a change is never at the same time as an import.
            place = min(2 * place, clock - 1 if clock % 2 else clock)
            row = f"row {number}" if has_row else None
            found = Import(Content(row, row, {"from": "import"}), place) if row else None
            if changes.version:
                story = changes.after(story, _content)
                changes = Changes()
            settled = settle(story, found, keeps_others=keeps_others, absent_us=place)
            story = _as_stored(settled) if saved else settled
            model.build(row, place, keeps_others)
            assert _shown(story) == model.state()
            continue
        alive = model.state() is not None
        if not alive and what != "upsert":
            continue  # The log does not take what changes nothing.
        assert isinstance(given_, dict)
        position += 1
        text = f"text {number}"
        kind = {"upsert": Kind.UPSERT, "delete": Kind.DELETE, "set": Kind.ATTRIBUTES}[what]
        change = Change(document_id="d", kind=kind, text=text, attributes=given_)
        changes = changes.then(Entry(0, position, clock, change))
        model.events.append(
            Event(clock, text if what == "upsert" else None, given_, only=what == "set")
        )


def _content(entry: Entry) -> Content:
    return Content("", entry.change.text, entry.change.attributes)


def _shown(story: Story | None) -> tuple[str, dict[str, AttributeValue]] | None:
    if story is None or story.content is None:
        return None
    return story.content.text, dict(story.attributes)


def _as_stored(story: Story | None) -> Story | None:
    """Gives a story as a snapshot keeps it: patches are folded in, and kept beside."""
    if story is None or story.content is None:
        return story
    content = Content("", story.content.text, story.attributes)
    patches = decode_patches(encode_patches(story.patches))
    return Story(content, story.time_us, story.imported, patches, story.version)


_ROW = Import(Content("", "row", {}), 50)


@pytest.mark.parametrize(
    ("story", "keeps_others", "text"),
    [
        (None, False, "row"),
        (Story(Content("", "old", {}), 10, True), False, "row"),
        (Story(Content("", "old", {}), 50, True), True, "row"),
        (Story(Content("", "old", {}), 90, True), False, "row"),
        (Story(Content("", "old", {}), 90, True), True, "old"),
        (Story(Content("", "live", {}), 40, False), False, "row"),
        (Story(Content("", "live", {}), 60, False), False, "live"),
        (Story(None, 40, False), False, "row"),
        (Story(None, 60, False), True, None),
    ],
)
def test_a_row_at_50(story: Story | None, keeps_others: bool, text: str | None) -> None:
    settled = settle(story, _ROW, keeps_others=keeps_others)
    assert settled is not None
    assert (settled.content.text if settled.content else None) == text


@pytest.mark.parametrize(
    ("story", "keeps_others", "stays"),
    [
        (Story(Content("", "old", {}), 90, True), False, False),
        (Story(Content("", "old", {}), 10, True, {"a": Patch(60, 1)}), False, True),
        (Story(Content("", "old", {}), 10, True, {"a": Patch(40, 1)}), False, False),
        (Story(Content("", "live", {}), 40, False), False, False),
        (Story(Content("", "live", {}), 60, False), False, True),
        (Story(Content("", "old", {}), 10, True), True, True),
        (Story(None, 10, False), False, True),
    ],
)
def test_no_row_at_50(story: Story, keeps_others: bool, stays: bool) -> None:
    settled = settle(story, None, keeps_others=keeps_others, absent_us=50)
    assert (settled is not None) == stays


def test_changes_made_after_a_snapshot_that_has_an_import_are_after_the_import() -> None:
    change = Change(document_id="d", kind=Kind.UPSERT, text="by a slow clock")
    changes = Changes().then(Entry(0, 1, 40, change))
    story = changes.not_before(51).after(None, _content)
    settled = settle(story, _ROW, keeps_others=False)
    assert settled is not None and settled.content is not None
    assert (settled.content.text, settled.time_us) == ("by a slow clock", 51)


def test_patches_are_read_as_they_were_written() -> None:
    patches = {"a": Patch(3, ["x", "y"]), "b": Patch(4, None), "c": Patch(5, 1.5)}
    assert decode_patches(encode_patches(patches)) == patches
    assert encode_patches({}) == "" and decode_patches("") == {}
