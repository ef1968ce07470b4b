"""The state of a document after imports and live changes, in order of their times.

A state summarises the history of a document: its content at the last write (or that it was
deleted), the time of that write, and the attributes set since. An import is inserted into the
history at its own time: later changes override it, and it overrides earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.contract import Attributes, AttributeValue
from nearline.items.attributes import decode, encode
from retrieval.changelog.records import ChangeEntry, ChangeKind

_Vectors = NDArray[np.float32] | None


class AttributePatch(NamedTuple):
    """An attribute as set by a live change, or removed (None), and the time of the change."""

    time_us: int
    value: AttributeValue


Patches = Mapping[str, AttributePatch]
_NO_PATCHES: Patches = {}


@dataclass(frozen=True, slots=True)
class DocumentContent:
    """The content of a document.

    bounds: (chunks, 2) int64, start and end of each chunk; None if it is yet to be cut.
    vectors: Returns (chunks, d) float32 of the model in use; None if there are none.
    """

    title: str
    text: str
    attributes: Attributes
    expires: datetime | None = None
    bounds: NDArray[np.int64] | None = None
    vectors: Callable[[], _Vectors] = lambda: None


@dataclass(frozen=True, slots=True)
class DocumentState:
    """The known state of a document.

    content: Content without patches; None if the document was deleted or never existed.
    time_us: Time of its last write, or its import time.
    imported: Whether the last write was an import.
    patches: Attributes set since.
    version: Number of the last live change; 0 if there was none since the import.
    """

    content: DocumentContent | None
    time_us: int
    imported: bool
    patches: Patches = field(default_factory=dict)
    version: int = 0

    @property
    def attributes(self) -> Attributes:
        """The attributes, including patches."""
        assert self.content is not None
        merged = dict(self.content.attributes)
        for name, patch in self.patches.items():
            merged.pop(name, None)
            if patch.value is not None:
                merged[name] = patch.value
        return merged

    @property
    def changed_us(self) -> int:
        """Time of the last live change; 0 if there was none."""
        times = (patch.time_us for patch in self.patches.values())
        return max(times, default=0 if self.imported else self.time_us)


@dataclass(frozen=True, slots=True)
class DocumentChanges:
    """The live changes of one document, summarised.

    whole: The last change that wrote or deleted the whole document; None if there is none.
    patches: Attributes set after that.
    version: Number of the last change; 0 if there is none.
    """

    whole: ChangeEntry | None = None
    patches: Patches = field(default_factory=dict)
    version: int = 0

    def followed_by(self, entry: ChangeEntry) -> DocumentChanges:
        """Returns the changes with the next one added."""
        if entry.change.kind is not ChangeKind.ATTRIBUTES:
            return DocumentChanges(entry, _NO_PATCHES, entry.position)
        patches = dict(self.patches)
        for name, value in entry.change.attributes.items():
            patches[name] = AttributePatch(entry.time_us, value)
        return DocumentChanges(self.whole, patches, entry.position)

    def not_before(self, time_us: int) -> DocumentChanges:
        """Returns the changes with earlier times moved up to a time."""
        whole = self.whole
        if whole is not None and whole.time_us < time_us:
            whole = whole._replace(time_us=time_us)
        patches = {
            name: AttributePatch(max(time_us, patch.time_us), patch.value)
            for name, patch in self.patches.items()
        }
        return DocumentChanges(whole, patches, self.version)

    def apply_to(
        self, state: DocumentState | None, content: Callable[[ChangeEntry], DocumentContent]
    ) -> DocumentState:
        """Returns the state after the changes.

        Args:
            state: State before the changes; None if the document is unknown.
            content: Returns the content written by a change.
        """
        if self.whole is not None:
            deleted = self.whole.change.kind is ChangeKind.DELETE
            written = None if deleted else content(self.whole)
            return DocumentState(written, self.whole.time_us, False, self.patches, self.version)
        if state is None:
            # Attributes of an unknown document count only if an earlier import adds the document.
            return DocumentState(None, 0, True, self.patches, self.version)
        return replace(state, patches={**state.patches, **self.patches}, version=self.version)


class ImportedDocument(NamedTuple):
    """An imported document and its import time."""

    content: DocumentContent
    import_time_us: int


def apply_import(
    state: DocumentState | None,
    found: ImportedDocument | None,
    *,
    keep_absent: bool,
    absent_us: int = 0,
) -> DocumentState | None:
    """Inserts an import into the history of a document.

    Args:
        state: State of the document; None if it is unknown.
        found: The imported document; None if the import lacks it.
        keep_absent: Whether documents that the import lacks stay, and earlier imports are ordered
            by time, too (merge). False: the import supersedes all earlier ones (replace).
        absent_us: Import time of missing documents.
    Returns: The resulting state; None if the document no longer exists.
    """
    if found is not None:
        import_time_us = found.import_time_us
        earlier = state is None or state.time_us <= import_time_us
        if state is None or earlier or (state.imported and not keep_absent):
            return _imported_content(
                found, state.patches if state else {}, state.version if state else 0
            )
        return state
    if state is None or (state.imported and state.content is None):
        return None
    gone = not keep_absent and state.content is not None and state.changed_us <= absent_us
    return None if gone else state


def _imported_content(found: ImportedDocument, patches: Patches, version: int) -> DocumentState:
    later = {name: patch for name, patch in patches.items() if patch.time_us > found.import_time_us}
    return DocumentState(found.content, found.import_time_us, True, later, version if later else 0)


def encode_patches(patches: Patches) -> str:
    """Returns patches as JSON: {name: [time in us, value]}; empty without patches."""
    if not patches:
        return ""
    # Values may be lists, so the type is not `Attributes`, but the JSON is the same.
    pairs: Mapping[str, object] = {name: [*patch] for name, patch in patches.items()}
    return encode(pairs)  # type: ignore[arg-type]


def decode_patches(text: str) -> Patches:
    """Parses the result of `encode_patches`."""
    if not text:
        return _NO_PATCHES
    pairs: Mapping[str, tuple[int, AttributeValue]] = decode(text)  # type: ignore[assignment]
    return {name: AttributePatch(time_us, value) for name, (time_us, value) in pairs.items()}
