"""`nearline plan`: computes how many GPUs, or how many cores, a load takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Annotated, Final

import typer

from nearline.counts import counted
from nearline.errors import InvalidRequest
from nearline_cli.sizing import processors
from nearline_cli.sizing.cards import CARDS, Card
from nearline_cli.sizing.encoder import EncoderPlan, plan_encoder
from nearline_cli.sizing.flat_search import MOST_QUERIES, FlatSearchPlan, plan_flat_search
from nearline_cli.terminal import output
from nearline_cli.terminal.amounts import METAVAR, Amount, read_amount

_ASSUMED: Final = "Assumed, not measured here."
_Row = tuple[str, str, str, str]
_COLUMNS = ("part", "figure", "value", "from")


def _amount(help: str) -> typer.models.OptionInfo:
    option = typer.Option(metavar=METAVAR, parser=read_amount, help=help)
    assert isinstance(option, typer.models.OptionInfo)
    return option


def _share(help: str) -> typer.models.OptionInfo:
    option = typer.Option(min=0.01, max=1.0, help=f"{help} {_ASSUMED}")
    assert isinstance(option, typer.models.OptionInfo)
    return option


def plan(
    vectors: Annotated[float | None, _amount("Vectors to search, for example 10M.")] = None,
    dim: Annotated[int, typer.Option(min=1, max=65_536, help="Numbers of a vector.")] = 384,
    queries: Annotated[float, _amount("Queries per second.")] = Amount(1),
    texts: Annotated[float | None, _amount("Texts to embed per second, for example 15k.")] = None,
    tokens: Annotated[int, typer.Option(min=1, max=65_536, help="Tokens of a text.")] = 200,
    gpu: Annotated[
        str, typer.Option(metavar="|".join(CARDS), help="Card; its datasheet has the next three.")
    ] = "h100",
    memory: Annotated[
        float | None, _amount("Memory of the card in bytes. \\[default: that of --gpu]")
    ] = None,
    bandwidth: Annotated[
        float | None,
        _amount("Bandwidth of its memory in bytes per second. \\[default: that of --gpu]"),
    ] = None,
    flops: Annotated[
        float | None,
        _amount("Its dense fp16 operations per second. \\[default: those of --gpu]"),
    ] = None,
    batch: Annotated[
        int,
        typer.Option(
            min=1, max=MOST_QUERIES, metavar="N", help="Queries that are searched together."
        ),
    ] = 64,
    snapshots: Annotated[
        int,
        typer.Option(
            min=1,
            max=16,
            metavar="N",
            help="Copies of the vectors: 2 while one replaces the other.",
        ),
    ] = 2,
    scratch: Annotated[
        float,
        _amount(
            "Bytes of a card without vectors: 3 GiB are for searches, the rest is CUDA's. "
            + _ASSUMED
        ),
    ] = Amount(4e9),
    load: Annotated[float, _share("Share of a card's rate that you plan with.")] = 0.7,
    bandwidth_efficiency: Annotated[
        float, _share("Share of the bandwidth that a search reaches.")
    ] = 0.7,
    flop_efficiency: Annotated[
        float, _share("Share of the operations that a search reaches.")
    ] = 0.5,
    embedding_efficiency: Annotated[
        float, _share("Share of the operations that embedding reaches.")
    ] = 0.25,
    layers: Annotated[int, typer.Option(min=1, max=200, help="Layers of the embedding model.")] = 6,
    width: Annotated[int, typer.Option(min=1, max=65_536, help="Width of these layers.")] = 384,
    as_json: output.JsonFlag = False,
) -> None:
    """Compute how many GPUs, or how many cores, a load takes.

    For example: nearline plan --vectors 10M --queries 8000 --texts 15k --gpu l4

    Figures of GPUs are limits by arithmetic, from datasheets and efficiencies that are assumed.
    Those of CPUs follow from what two cores were measured to do. See docs/guides/gpu.md.
    """
    if vectors is None and texts is None:
        raise InvalidRequest("nothing to plan: give --vectors, --texts or both", field="vectors")
    card = _card(gpu, memory=memory, bandwidth=bandwidth, flops=flops)
    record: dict[str, object] = {"gpu": gpu, "card": asdict(card)}
    rows: list[_Row] = []
    if vectors is not None:
        if scratch >= card.memory:
            raise InvalidRequest(
                f"--scratch {Amount(scratch)} leaves nothing of the card's {_bytes(card.memory)}",
                field="scratch",
            )
        search = plan_flat_search(
            card.at(bandwidth_efficiency=bandwidth_efficiency, flop_efficiency=flop_efficiency),
            vectors=vectors,
            dim=dim,
            queries=queries,
            batch=batch,
            snapshots=snapshots,
            scratch=scratch,
            load=load,
        )
        cpu = _search_on_cpu(vectors, dim, queries)
        record |= {"search": asdict(search), "search_on_cpu": cpu}
        rows += _search_rows(search, counted(snapshots, "snapshot"), batch, load)
        rows += _cpu_rows(cpu)
    if texts is not None:
        encoder = plan_encoder(
            card.at(bandwidth_efficiency=1.0, flop_efficiency=embedding_efficiency),
            texts=texts,
            tokens=tokens,
            layers=layers,
            width=width,
            load=load,
        )
        cores = processors.encoder_cores(texts, tokens, layers, width)
        record |= {"embedding": asdict(encoder), "embedding_on_cpu": {"cores": cores}}
        rows += _encoder_rows(encoder, cores, load)
    if as_json:
        output.print_json(record)
        return
    output.print_table(_COLUMNS, rows, title=f"{gpu}: {_describe(card)}")
    output.console().print(
        "GPUs: limits by arithmetic; efficiencies, scratch and load are assumed, not measured here."
    )


def _card(name: str, *, memory: float | None, bandwidth: float | None, flops: float | None) -> Card:
    if name not in CARDS:
        raise InvalidRequest(
            f"--gpu {name[:100]!r} is not known; choose {', '.join(CARDS)}, or give --memory, "
            "--bandwidth and --flops of yours over the nearest of them",
            field="gpu",
        )
    given = {"memory": memory, "bandwidth": bandwidth, "flops": flops}
    return replace(CARDS[name], **{key: one for key, one in given.items() if one is not None})


def _search_on_cpu(vectors: float, dim: int, queries: float) -> dict[str, float]:
    # Imported late: it takes a tenth of a second.
    from retrieval.settings import RouterSettings

    most: int = RouterSettings.model_fields["max_comparisons"].default
    return {
        "request_cores": processors.request_cores(queries),
        "hnsw_bytes": processors.graph_bytes(vectors, dim),
        "hnsw_cores": processors.graph_cores(vectors, dim, queries),
        "exact_cores": processors.exact_cores(vectors, dim, queries),
        "comparisons_per_query": vectors,
        "exact_queries_per_request": most // vectors,
    }


def _search_rows(found: FlatSearchPlan, copies: str, batch: int, load: float) -> Iterator[_Row]:
    part = "exact search on GPUs"
    yield part, "memory of the vectors", _bytes(found.bytes), "2 x vectors x dim"
    yield part, "cards for memory", str(found.cards_for_memory), f"{copies}, and scratch on each"
    together = f"of one card, batches of {batch}"
    yield part, "limit: vectors read", _rate(found.read_qps), f"{together}; bandwidth"
    yield part, "limit: distances", _rate(found.distance_qps), f"{together}; bandwidth"
    yield part, "limit: arithmetic", _rate(found.arithmetic_qps), f"{together}; FLOP"
    yield part, "queries", _rate(found.qps), f"{together}; {found.batch_ms:.3g} ms each"
    by_distances = f"batch of {found.distance_crossover_batch:.0f}"
    yield part, "crossover of distances", by_distances, "they cost as much as reading the vectors"
    by_arithmetic = f"batch of {found.crossover_batch:.0f}"
    yield part, "crossover of arithmetic", by_arithmetic, "it costs as much as reading the vectors"
    yield part, "cards for the rate", str(found.cards_for_rate), f"at {load:.0%} of it"
    yield part, "cards", str(found.cards), "the larger number"


def _cpu_rows(found: dict[str, float]) -> Iterator[_Row]:
    measured = "docs/performance.md"
    cores = _cores(found["request_cores"])
    yield "exact search on GPUs", "cores for requests", cores, measured
    yield "HNSW32 on CPUs", "memory of the index", _bytes(found["hnsw_bytes"]), "fp32 and links"
    yield "HNSW32 on CPUs", "cores", _cores(found["hnsw_cores"]), f"{measured}, ef 64"
    yield "exact search on CPUs", "cores", _cores(found["exact_cores"]), measured
    compared = f"{found['comparisons_per_query']:,.0f}"
    yield "price of exact search", "comparisons of a query", compared, "vectors"
    most = f"{found['exact_queries_per_request']:,.0f}"
    yield "price of exact search", "queries of a request", most, "default of --max-comparisons"


def _encoder_rows(found: EncoderPlan, cores: float, load: float) -> Iterator[_Row]:
    part, needed = "embedding on GPUs", f"{found.flop_per_token / 1e6:.1f} MFLOP"
    yield part, "a token", needed, "2 x weights of the layers + attention"
    yield part, "texts", _rate(found.texts_per_s), "of one card; FLOP, without tokenizing"
    yield part, "cards for the rate", str(found.cards), f"at {load:.0%} of it"
    measured = "docs/reference/settings.md, token_budget"
    yield "embedding on CPUs", "cores", _cores(cores), measured


def _describe(card: Card) -> str:
    speed = f"{card.bandwidth / 1e12:.3g} TB/s, {card.flops / 1e12:.4g} TFLOP/s in dense fp16"
    return f"{_bytes(card.memory)}, {speed}"


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.4g} GB"


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}/s" if per_s >= 10 else f"{per_s:.2g}/s"


def _cores(count: float) -> str:
    return f"{count:,.1f}"
