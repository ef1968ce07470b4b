"""`nearline eval names`: asks a catalogue for its own titles, as people write them."""

from __future__ import annotations

import asyncio
import random
import re
import string
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from nearline.clients import RetrievalClient
from nearline.contract import Query, SearchMode, SearchOptions
from nearline.errors import InvalidRequest
from nearline_cli.compose.build_context import open_embedder
from nearline_cli.evaluate.beir_build import BuildPlan, build_dataset
from nearline_cli.inputs.interactions import InteractionOptions
from nearline_cli.local.processes import retrieval_process
from nearline_cli.terminal import options, output

if TYPE_CHECKING:
    from index_builder.readers.corpus import Corpus

_ARTICLES = frozenset(
    "a an the la le les un une el los las il lo gli der die das ein eine de het".split()
)
_WORD = re.compile(r"[^\W\d_]{4,}")
_K = 10
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class _Title:
    """A title of the catalogue: its document, and how often people use that."""

    document: str
    title: str
    used: float


def names(
    corpus: Annotated[
        Path, typer.Option(metavar="FILE", help="The catalogue, in a format of nearline build.")
    ],
    *,
    reading: InteractionOptions,
    interactions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Interactions with the items: the most popular titles are asked for, and items "
            "of one title are found in this order. \\[default: titles are drawn]",
        ),
    ] = None,
    mode: Annotated[SearchMode, typer.Option(help="Search mode.")] = SearchMode.HYBRID,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, metavar="N", help="Titles to ask.")
    ] = 500,
    seed: Annotated[int, typer.Option(help="Seed of random draws.")] = 0,
    shards: Annotated[int, typer.Option(metavar="N", help="Number of shards to build.")] = 1,
    language: Annotated[
        str, typer.Option(help="Language of the stemmer and the stop words; none: neither.")
    ] = "english",
    id_column: options.IdColumnOption = "",
    title_column: options.TitleColumnOption = "",
    text_column: options.TextColumnOption = "",
    embedding: options.EmbeddingOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Ask a catalogue for its own titles, and count how often the right item comes first.

    For example: nearline eval names --corpus movies.csv --text-column genres

    Titles are asked for as written, in lower case without accents and articles, and with one typo:
    a letter that is missing, added, wrong, or swapped with its neighbour. Titles without a word of
    four letters are not asked for with a typo.
    """
    from index_builder.readers.columns import DocumentColumns
    from index_builder.readers.corpus import Corpus

    columns = DocumentColumns(
        id=id_column, title=title_column, text=text_column, needs_text=False, attributes=()
    )
    used: dict[str, float] = {}
    if interactions is not None:
        read = reading.load(interactions).interactions
        counts = np.bincount(read.item, minlength=len(read.items)).tolist()
        used = dict(zip(read.items, counts, strict=True))
    titles = _titles(Corpus([corpus], columns), used, limit, seed)
    if not titles:
        raise InvalidRequest(
            f"{corpus} has no titles to ask for; name their column with --title-column",
            field="title_column",
        )
    most = float(np.log1p(max(used.values(), default=0.0))) or 1.0
    plan = BuildPlan(
        shards=shards,
        embedding=embedding,
        language=language,
        columns=columns,
        popularity={item: float(np.log1p(count)) / most for item, count in used.items()} or None,
    )
    began = time.monotonic()
    figures = asyncio.run(_build_and_ask(corpus, titles, plan, mode, seed, as_json))
    record = {"mode": mode.value, "titles": len(titles), **figures}
    record["seconds"] = round(time.monotonic() - began, 1)
    output.print_figures(record, as_json=as_json)


def folded(title: str) -> str:
    """Returns a title in lower case, without accents and articles."""
    from retrieval.index.lexical.text_analysis import fold, normalize

    words = fold(normalize(title)).split()
    kept = [word for word in words if word.strip(string.punctuation) not in _ARTICLES]
    return " ".join(kept or words)


def with_typo(title: str, draw: random.Random) -> str:
    """Returns a title with one typo in a word of four letters or more; itself without one."""
    words = list(_WORD.finditer(title))
    if not words:
        return title
    chosen = draw.choice(words)
    word, at = chosen.group(), draw.randrange(len(chosen.group()))
    others = [letter for letter in string.ascii_lowercase if letter != word[at].lower()]
    near = min(at, len(word) - 2)
    swapped = word[:near] + word[near + 1] + word[near] + word[near + 2 :]
    spelt = draw.choice(
        [
            word[:at] + word[at + 1 :],
            word[:at] + draw.choice(string.ascii_lowercase) + word[at:],
            word[:at] + draw.choice(others) + word[at + 1 :],
            swapped if swapped != word else word[:at] + word[at + 1 :],
        ]
    )
    return title[: chosen.start()] + spelt + title[chosen.end() :]


def _titles(corpus: Corpus, used: Mapping[str, float], limit: int, seed: int) -> list[_Title]:
    """Returns the titles to ask for: the most used, else drawn at random."""
    from index_builder.documents.bad_rows import BadRows

    rows = corpus.rows(BadRows(1 << 62))
    found = [
        _Title(row.item.id, row.item.title.strip(), used.get(row.item.id, 0.0))
        for row in rows
        if row.item.title.strip()
    ]
    random.Random(seed).shuffle(found)
    if used:
        found.sort(key=lambda one: (-one.used, one.document))
    return found[:limit]


async def _build_and_ask(
    corpus: Path,
    titles: Sequence[_Title],
    plan: BuildPlan,
    mode: SearchMode,
    seed: int,
    as_json: bool,
) -> dict[str, object]:
    draw = random.Random(seed)
    ways: Mapping[str, Callable[[str], str]] = {
        "written": lambda title: title,
        "folded": folded,
        "typo": lambda title: with_typo(title, draw),
    }
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="nearline-eval-") as folder:
        async with AsyncExitStack() as stack:
            embedder = await stack.enter_async_context(open_embedder(plan.embedding, quiet=as_json))
            await build_dataset(folder, corpus, plan, embedder, as_json)
            router = await stack.enter_async_context(
                retrieval_process(Path(folder), embedding=embedder.address)
            )
            client = await stack.enter_async_context(RetrievalClient(router.address))
            for way, write in ways.items():
                asked = [replace(one, title=write(one.title)) for one in titles]
                if way == "typo":
                    asked = [
                        one
                        for one, own in zip(asked, titles, strict=True)
                        if one.title != own.title
                    ]
                figures |= {f"{way}_{n}": v for n, v in (await _ask(client, asked, mode)).items()}
    return figures


async def _ask(
    client: RetrievalClient, asked: Sequence[_Title], mode: SearchMode
) -> dict[str, object]:
    """Returns the shares of titles that are found first and among ten, and the median time."""
    wanted = SearchOptions(k=_K, mode=mode, payload=frozenset())
    ranks, times = [], []
    for one in asked:
        start = time.perf_counter()
        reply = await client.search(Query(text=one.title), wanted, timeout_s=_TIMEOUT_S)
        times.append(time.perf_counter() - start)
        ids = [hit.id for hit in reply.hits]
        ranks.append(ids.index(one.document) if one.document in ids else _K)
    return {
        "asked": len(asked),
        "first": round(sum(rank == 0 for rank in ranks) / max(1, len(ranks)), 4),
        "among_ten": round(sum(rank < _K for rank in ranks) / max(1, len(ranks)), 4),
        "p50_ms": round(1e3 * float(np.median(times)), 2) if times else None,
    }
