"""Which state of a document counts: what was imported and what was changed live, in order of time.

A document's story is what is known of it before an import, in short: what it was when it was last
written (or that it was deleted), when that was, and which attributes were set since. An import
takes its place in that story: what comes later wins over it, what came before loses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.attributes import decode, encode
from nearline.contract import Attributes, AttributeValue
from retrieval.changelog.records import ChangeEntry, ChangeKind

_Vectors = NDArray[np.float32] | None


class AttributePatch(NamedTuple):
    """An attribute as a live change set it, or removed it (None), and when."""

    time_us: int
    value: AttributeValue


Patches = Mapping[str, AttributePatch]
_NO_PATCHES: Patches = {}


@dataclass(frozen=True, slots=True)
class DocumentContent:
    """What a document says.

    bounds: (chunks, 2) int64, where it was cut; None: it is yet to be cut.
    vectors: Gives (chunks, d) float32 of the model in use; None where there are none.
    """

    title: str
    text: str
    attributes: Attributes
    expires: datetime | None = None
    bounds: NDArray[np.int64] | None = None
    vectors: Callable[[], _Vectors] = lambda: None


@dataclass(frozen=True, slots=True)
class DocumentState:
    """What is known of a document.

    content: What it says, patches not included; None: it was deleted, or never was.
    time_us: When that was written, or its import's place.
    imported: Whether it came by an import.
    patches: Attributes set since.
    version: Number of the last live change; 0: none since it was imported.
    """

    content: DocumentContent | None
    time_us: int
    imported: bool
    patches: Patches = field(default_factory=dict)
    version: int = 0

    @property
    def attributes(self) -> Attributes:
        """The attributes, patches included."""
        assert self.content is not None
        merged = dict(self.content.attributes)
        for name, patch in self.patches.items():
            merged.pop(name, None)
            if patch.value is not None:
                merged[name] = patch.value
        return merged

    @property
    def changed_us(self) -> int:
        """When it was last changed live; 0: never."""
        times = (patch.time_us for patch in self.patches.values())
        return max(times, default=0 if self.imported else self.time_us)


@dataclass(frozen=True, slots=True)
class DocumentChanges:
    """The live changes of one document, in short.

    whole: The last that wrote or deleted it; None: there is none.
    patches: Attributes set after that.
    """

    whole: ChangeEntry | None = None
    patches: Patches = field(default_factory=dict)
    version: int = 0

    def followed_by(self, entry: ChangeEntry) -> DocumentChanges:
        """Returns them with the next one."""
        if entry.change.kind is not ChangeKind.ATTRIBUTES:
            return DocumentChanges(entry, _NO_PATCHES, entry.position)
        patches = dict(self.patches)
        for name, value in entry.change.attributes.items():
            patches[name] = AttributePatch(entry.time_us, value)
        return DocumentChanges(self.whole, patches, entry.position)

    def not_before(self, time_us: int) -> DocumentChanges:
        """Returns them as if none had been made before a time."""
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
        """Returns the story that goes on with them.

        Args:
            story: What was known; None: nothing.
            content: Makes what a document says of the change that wrote it.
        """
        if self.whole is not None:
            deleted = self.whole.change.kind is ChangeKind.DELETE
            written = None if deleted else content(self.whole)
            return DocumentState(written, self.whole.time_us, False, self.patches, self.version)
        if state is None:
            # Attributes of what is not there, unless an import brings it from before.
            return DocumentState(None, 0, True, self.patches, self.version)
        return replace(state, patches={**state.patches, **self.patches}, version=self.version)


class ImportedDocument(NamedTuple):
    """A document as an import brings it, and the import's place in time."""

    content: DocumentContent
    import_time_us: int


def apply_import(
    state: DocumentState | None,
    found: ImportedDocument | None,
    *,
    keep_absent: bool,
    absent_us: int = 0,
) -> DocumentState | None:
    """Puts an import into the story of a document.

    Args:
        story: What is known of it; None: nothing.
        found: What the import has of it; None: it lacks it.
        keeps_others: Whether documents stay that the import lacks (merge), and whether what an
            earlier import brought is weighed by its place, too; False (replace): an import takes
            the place of all earlier ones.
        absent_us: Place of the import where it lacks the document.
    Returns: The story with the import in it; None: there is no such document any more.
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
    """Writes patches as JSON: {name: [time in us, value]}; empty where there are none."""
    if not patches:
        return ""
    # A value may be a list, so that this is no `Attributes`; its JSON is.
    pairs: Mapping[str, object] = {name: [*patch] for name, patch in patches.items()}
    return encode(pairs)  # type: ignore[arg-type]


def decode_patches(text: str) -> Patches:
    """Reads what `encode_patches` wrote."""
    if not text:
        return _NO_PATCHES
    pairs: Mapping[str, tuple[int, AttributeValue]] = decode(text)  # type: ignore[assignment]
    return {name: AttributePatch(time_us, value) for name, (time_us, value) in pairs.items()}
