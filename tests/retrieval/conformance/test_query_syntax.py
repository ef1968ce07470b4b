"""Phrases, excluded words and the like, each way that serves them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nearline import contract as c
from nearline.errors import InvalidRequest, NearlineError, Unsupported
from nearline.filters import Equals, Not, Phrase, Words
from tests.retrieval.built_collections import COLLECTIONS
from tests.retrieval.conformance.features import DIM, Catalogue

pytestmark = pytest.mark.asyncio(loop_scope="module")
LEXICAL, DENSE = c.SearchMode.LEXICAL, c.SearchMode.DENSE
VECTOR = np.ones(DIM, np.float32)
TEXTS = {
    "york": ("City guide", "A hotel in New York, with a view."),
    "yorks": ("New York's hotels", "All of them are expensive."),
    "apart": ("A new hotel", "It stands in York, and has a view."),
    "spider": ("Spider-Man", "A man bitten by a spider swings over New-York."),
    "spiders": ("Spiders", "Animals with eight legs. No hotel has none."),
    "cheap": ("Cheap rooms", "A cheap hotel without a view."),
    "bjork": ("Björk", "She sings in every hotel."),
    "amp": ("The XR-200", "An amplifier for rooms."),
}
ITEMS = [
    c.Item(id=name, title=title, text=text, attributes={"long": len(text) > 30})
    for name, (title, text) in TEXTS.items()
]
HOTELS = {"york", "yorks", "apart", "spiders", "cheap", "bjork"}


CATALOGUE = Catalogue(ITEMS, plain=True)


async def found(
    service: c.Retriever, text: str, collection: str = "one", **options: object
) -> set[str]:
    wanted = c.SearchOptions(k=10, **options)  # type: ignore[arg-type]
    reply = await service.search(c.Query(text=text), wanted, collection=collection)
    return {hit.id for hit in reply.hits}


@pytest.mark.parametrize("collection", COLLECTIONS)
async def test_hits_have_the_phrases_and_lack_what_is_excluded(
    service: c.Retriever, collection: str
) -> None:
    for text, expected in {
        "hotel": HOTELS,
        '"new york" hotel': {"york", "yorks", "spider"},
        "hotel -cheap": HOTELS - {"cheap"},
        'hotel -"NEW york"': HOTELS - {"york", "yorks"},
        '"new york" -hotel': {"spider"},
        # By accents and compounds, as words are searched for.
        '"bjork" hotel': {"bjork"},
        '"xr200" rooms': set(),
        '"XR 200" rooms': {"amp"},
        "rooms -XR-200": {"cheap"},
        # Quotes that do not close are no syntax.
        'hotel "new york': HOTELS | {"spider"},
    }.items():
        assert await found(service, text, collection, mode=LEXICAL) == expected, text
    hybrid = await found(service, '"new york" hotel', collection)
    dense = await found(service, '"new york" hotel', collection, mode=DENSE)
    assert hybrid == dense == {"york", "yorks", "spider"}
    both = await found(
        service, '"new york" hotel', collection, filter=Not(Equals("long", True)), mode=DENSE
    )
    assert both == {"yorks"}


@pytest.mark.parametrize("collection", COLLECTIONS)
async def test_a_last_word_with_a_star_may_go_on(service: c.Retriever, collection: str) -> None:
    lexical = {"collection": collection, "mode": LEXICAL}
    assert await found(service, "expens*", **lexical) == {"yorks"}  # type: ignore[arg-type]
    assert await found(service, "ampl*", **lexical) == {"amp"}  # type: ignore[arg-type]
    assert await found(service, "ampl", **lexical) == set()  # type: ignore[arg-type]
    plain = await found(service, "ampl*", **lexical, plain_text=True)  # type: ignore[arg-type]
    assert plain == set()
    reply = await service.search(c.Query(text="spider ma*"), collection=collection)
    assert reply.hits[0].id == "spider"


@pytest.mark.parametrize("collection", COLLECTIONS)
async def test_hits_have_the_share_of_words_that_is_asked_for(
    service: c.Retriever, collection: str
) -> None:
    for text, share, expected in (
        ("hotel view new", 1.0, {"york", "apart"}),
        ("hotel view new", 0.67, {"york", "yorks", "apart", "cheap"}),
        # A misspelt word is the one that it resembles.
        ("amplifer rooms", 1.0, {"amp"}),
        # Stop words do not count, the words of a phrase do.
        ('the "new york" view', 1.0, {"york"}),
    ):
        for mode in c.SearchMode:
            ids = await found(service, text, collection, mode=mode, min_should_match=share)
            assert ids == expected, (text, mode)


@pytest.mark.parametrize("collection", COLLECTIONS)
async def test_filters_have_the_same_conditions(service: c.Retriever, collection: str) -> None:
    for condition, expected in (
        (Phrase("new york"), 3),
        (Words("hotels"), 6),
        (Words("hotel york"), 3),
        (Not(Words("hotel")), 2),
    ):
        reply = await service.count_items(condition, collection=collection)
        assert reply.count == expected, condition


async def test_each_query_of_a_batch_has_its_own_conditions(service: c.Retriever) -> None:
    texts = ["hotel", '"new york" hotel', "hotel", "hotel -cheap"]
    queries = [*(c.Query(text=text) for text in texts), c.Query(vector=VECTOR)]
    reply = await service.search_batch(queries, c.SearchOptions(k=10), collection="four")
    single = [
        await service.search(one, c.SearchOptions(k=10), collection="four") for one in queries
    ]
    assert [[hit.id for hit in one.hits] for one in reply.results] == [
        [hit.id for hit in one.hits] for one in single
    ]
    many = [c.Query(text=f"hotel -w{number}") for number in range(65)]
    with pytest.raises(InvalidRequest, match="65 different conditions"):
        await service.search_batch(many, collection="four")


@pytest.mark.parametrize(
    ("query", "options", "error", "message"),
    [
        ("-hotel", {}, InvalidRequest, "only says what hits must not have"),
        ("hotel", {"min_should_match": 0.0}, InvalidRequest, "above 0 and at most 1"),
        (
            "hotel",
            {"min_should_match": float("nan")},
            InvalidRequest,
            "min_should_match is nan|not a finite",
        ),
        (VECTOR, {"min_should_match": 1.0}, InvalidRequest, "is not a text"),
        (
            " ".join(f"w{number}" for number in range(65)),
            {"min_should_match": 1.0},
            InvalidRequest,
            "65 different words, 64 are allowed",
        ),
    ],
)
async def test_what_cannot_be_searched_is_refused_with_a_remedy(
    service: c.Retriever,
    query: str | NDArray[np.float32],
    options: dict[str, object],
    error: type[NearlineError],
    message: str,
) -> None:
    asked = c.Query(text=query) if isinstance(query, str) else c.Query(vector=query)
    with pytest.raises(error, match=message):
        await service.search(asked, c.SearchOptions(**options), collection="one")  # type: ignore[arg-type]


async def test_without_a_lexical_index_signs_are_text(service: c.Retriever) -> None:
    everything = await found(service, '"new york" -hotel', "plain")
    assert everything == set(TEXTS)
    with pytest.raises(Unsupported, match="no lexical index, so words cannot be required"):
        await found(service, "hotel", "plain", min_should_match=1.0)
    with pytest.raises(Unsupported, match="no lexical index; build it from texts"):
        await found(service, "hotel", "plain", filter=Phrase("new york"))
