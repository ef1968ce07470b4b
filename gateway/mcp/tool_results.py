"""Results of the tools: what an agent gets, and the schemas that tell it so."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class IgnoredIdResult(BaseModel):
    """An id of the request that was ignored."""

    id: str
    reason: str


class ListCollectionsResult(BaseModel):
    """Result of `list_collections`."""

    collections: dict[str, int] = Field(description="By name, the number of items when built.")


class HitResult(BaseModel):
    """An item that was found."""

    id: str
    score: float = Field(description="Larger is better; comparable only within one result.")
    title: str = ""
    text: str = Field("", description="The passage that matched.")
    start: int = Field(description="First character of the passage in the text of the item.")
    end: int = Field(description="One past its last character.")
    attributes: dict[str, Any]


class SearchResult(BaseModel):
    """Result of `search`."""

    hits: list[HitResult] = Field(description="Best first.")
    complete: bool = Field(
        description="Whether every part of the collection was searched; if not, try again later."
    )
    snapshot_id: str = Field(description="Version of the collection.")


class RecommendationResult(BaseModel):
    """A recommended item."""

    id: str
    score: float
    title: str = ""
    attributes: dict[str, Any]
    reasons: list[str] = Field(
        description="Why it is in the list, strongest first, for example because:ITEM, taste, "
        "popular, trending, new or pinned."
    )


class RecommendResult(BaseModel):
    """Result of `recommend`."""

    recommendations: list[RecommendationResult] = Field(description="Best first.")
    ignored_ids: list[IgnoredIdResult] = Field(description="Examples that were ignored.")
    list_id: str = Field(description="Id of this list.")
    policy: str = Field(description="Rules of the surface that made the list.")


class WhyNotResult(BaseModel):
    """Result of `why_not`."""

    item_id: str
    cause: str = Field(
        description="listed, no_such_item, outranked, seen, excluded, blocked, filtered, quota or "
        "diversity."
    )
    rank: int = Field(description="Rank before any rule, from 1; 0: it was not a candidate.")
    message: str = Field(description="The cause, for people.")


class CitationResult(BaseModel):
    """A span of a document that supports a sentence of the answer."""

    number: int = Field(description="As in markers of the answer: [1].")
    document_id: str
    title: str
    char_start: int = Field(description="First character of the span in the text of the document.")
    char_end: int = Field(description="One past its last character.")
    text_hash: str = Field(description="SHA-256 of the span.")
    snapshot_id: str
    support: float = Field(description="How well it supports the sentence; 1: word for word.")


class RefusalResult(BaseModel):
    """Reason why there is no answer."""

    reason: str = Field(
        description="off_topic, no_evidence or unclear: ask again, and name what is meant."
    )
    message: str


class AskResult(BaseModel):
    """Result of `ask`."""

    answered: bool = Field(description="If false, there is no answer: do not give one.")
    answer: str = Field("", description="Text with markers such as [1]; empty unless answered.")
    not_sure: bool = Field(
        False,
        description="Whether the documents may not answer the question; see closest_passages.",
    )
    closest_passages: str = Field(
        "",
        description="If not sure: passages near the question, with markers. They are no answer; "
        "say so if you show them.",
    )
    citations: list[CitationResult]
    evidence_probability: float = Field(
        description="Probability that the documents contain an answer, 0 to 1."
    )
    finish: str = Field("", description="complete, length, interrupted or deadline.")
    refusal: RefusalResult | None = None


class GetItemResult(BaseModel):
    """Result of `get_item`."""

    id: str
    title: str
    text: str = Field(description="The text from start to end.")
    start: int
    end: int
    text_length: int = Field(description="Characters of the whole text; if end is less, read on.")
    attributes: dict[str, Any]
    version: int
    expire_time: str | None = None


class CitationCheckResult(BaseModel):
    """Result of checking a citation."""

    document_id: str
    verdict: Literal["valid", "moved", "changed", "gone", ""] = Field(
        description="valid: the text is where the citation says; moved: it is elsewhere in the "
        "document; changed: the document no longer contains it; gone: there is no such document."
    )
    char_start: int = Field(description="Where the text is now, if it is valid or moved.")
    char_end: int


class VerifyCitationResult(BaseModel):
    """Result of `verify_citation`."""

    checks: list[CitationCheckResult] = Field(description="One per citation, in order.")
    snapshot_id: str = Field(description="Version of the collection that was read.")


class WriteOutcomeResult(BaseModel):
    """Outcome of changing an item."""

    id: str
    outcome: str = Field(
        description="applied: it is new; replaced: it was there before; deleted; absent: there is "
        "no such item; unchanged."
    )
    version: int = Field(description="Number of the change.")
    visible: bool = Field(
        description="Whether searches see the change already; if not, they will within seconds."
    )


class SnapshotInfluenceResult(BaseModel):
    """A snapshot whose models learned from a user who was erased."""

    snapshot_id: str
    in_force: bool = Field(description="Whether it is served; building again replaces it.")


class UserReceiptResult(BaseModel):
    """Receipt of erasing a user."""

    user_id: str
    delete_time: str
    interactions: int = Field(description="Interactions that were erased.")
    log_entries: int = Field(description="Entries of the log of interactions that were erased.")
    sessions: int = Field(description="Sessions that were erased.")
    snapshots: list[SnapshotInfluenceResult] = Field(
        description="Snapshots whose models still learned from the user."
    )


class ForgetResult(BaseModel):
    """Result of `forget`; one of the two is there."""

    item: WriteOutcomeResult | None = None
    user: UserReceiptResult | None = None
