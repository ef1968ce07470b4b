"""Arguments of the tools: what an agent may send, and the schemas that tell it so."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_MAX_ID = 512
# Of a character in a text, as the services count.
_MAX_PLACE = (1 << 63) - 1
_Id = Annotated[str, Field(min_length=1, max_length=_MAX_ID)]
_OptionalId = Annotated[str, Field(max_length=_MAX_ID)]
_Filter = Annotated[
    str,
    Field(
        max_length=32_768,
        description="Only items whose attributes match, for example: price < 80 AND brand IN "
        "[acme, zenith] AND NOT tags = sale. Empty: all items.",
    ),
]


class ToolArguments(BaseModel):
    """Arguments of every tool."""

    model_config = ConfigDict(extra="forbid")

    collection: str = Field(
        "", max_length=63, description="Name of the collection. Leave it out for the default one."
    )


class ListCollectionsArguments(ToolArguments):
    """Arguments of `list_collections`."""

    collection: str = Field("", max_length=63, description="Only this one. Empty: all.")


class SearchArguments(ToolArguments):
    """Arguments of `search`."""

    query: str = Field(
        min_length=1,
        max_length=32_768,
        description='What to look for, in natural language. "Quoted words" must be in a hit one '
        "after another; a hit has no -word.",
    )
    k: int = Field(10, ge=1, le=50, description="Number of hits.")
    filter: _Filter = ""
    mode: Literal["auto", "hybrid", "dense", "lexical"] = Field(
        "auto", description="dense: by meaning; lexical: by words; hybrid: both."
    )


class RecommendArguments(ToolArguments):
    """Arguments of `recommend`."""

    user_id: _OptionalId = Field("", description="User to recommend for. Empty: anybody.")
    session_id: _OptionalId = Field("", description="Session of an anonymous visitor.")
    item_ids: list[_Id] = Field(
        default_factory=list,
        max_length=256,
        description="Recommend items that go with these, for example the item of the current page.",
    )
    surface: str = Field(
        "",
        max_length=128,
        description="Where the list is shown, for example home, item_page or cart. Empty: home.",
    )
    n: int = Field(10, ge=1, le=100, description="Length of the list.")
    exclude_ids: list[_Id] = Field(
        default_factory=list, max_length=1_000, description="Items to leave out."
    )
    filter: _Filter = ""


class WhyNotArguments(RecommendArguments):
    """Arguments of `why_not`."""

    item_id: _Id = Field(description="Item that is missing from the list.")


class AskArguments(ToolArguments):
    """Arguments of `ask`."""

    question: str = Field(min_length=1, max_length=32_768, description="A complete question.")
    filter: _Filter = ""
    documents: int = Field(5, ge=1, le=50, description="Number of documents to answer from.")
    max_tokens: int = Field(256, ge=1, le=4_096, description="Longest answer, in tokens.")
    strictness: Literal["auto", "strict", "balanced", "lenient"] = Field(
        "auto",
        description="How sure it must be to answer. strict: few wrong answers; lenient: few "
        "questions without one; auto: what the service chooses for the collection.",
    )
    answer_anyway: bool = Field(
        False, description="Answer even if the evidence looks too weak, instead of refusing."
    )


class GetItemArguments(ToolArguments):
    """Arguments of `get_item`."""

    item_id: _Id = Field(description="Id of the item.")
    start: int = Field(
        0, ge=0, description="First character of the text to return, as in hits and citations."
    )
    end: int | None = Field(
        None, ge=1, description="One past the last character. Leave it out to read on from start."
    )


class CitationArgument(BaseModel):
    """A citation that `ask` returned; other fields are ignored."""

    model_config = ConfigDict(extra="ignore")

    document_id: _Id
    char_start: int = Field(ge=0, le=_MAX_PLACE)
    char_end: int = Field(ge=0, le=_MAX_PLACE)
    text_hash: str = Field(max_length=64)


class VerifyCitationArguments(ToolArguments):
    """Arguments of `verify_citation`."""

    citations: list[CitationArgument] = Field(
        min_length=1, max_length=100, description="Citations exactly as ask returned them."
    )


class RememberArguments(ToolArguments):
    """Arguments of `remember`."""

    item_id: _Id = Field(
        description="Id of the item. An item that has this id is replaced, so use a new one for "
        "something new."
    )
    title: str = Field("", max_length=16_384, description="Title.")
    text: str = Field("", max_length=1 << 20, description="Text to be found by searches.")
    attributes: dict[str, Any] = Field(
        default_factory=dict,
        max_length=1_000,
        description="Values to filter by: texts, numbers, true or false, or lists of them. A time "
        'is {"$time": "2024-05-01T12:00:00Z"}.',
    )
    only_attributes: bool = Field(
        False,
        description="Change only these attributes of an existing item; null removes one. Its text "
        "and title stay.",
    )
    expire_time: str = Field(
        "",
        max_length=64,
        description="When the item is to vanish, for example 2027-05-01T12:00:00Z. Empty: never.",
    )


class ForgetArguments(ToolArguments):
    """Arguments of `forget`."""

    item_id: _OptionalId = Field("", description="Item to delete.")
    user_id: _OptionalId = Field(
        "", description="User to erase, with everything stored about them."
    )
