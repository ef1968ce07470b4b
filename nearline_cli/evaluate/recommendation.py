"""`nearline eval recommend`: measures models of behaviour on held-out interactions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.errors import InvalidRequest
from nearline_cli.compose.build_context import open_embedder
from nearline_cli.inputs.interactions import InteractionOptions
from nearline_cli.terminal import options, output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from index_builder.behaviour.model_evaluation import Evaluation
    from index_builder.interactions.records import Interactions
    from index_builder.readers.columns import DocumentColumns as TextColumns

_SPLITS = "last-n:N, first-n:N, time:SHARE, loo, cold-users:SHARE or cold-items:SHARE"
# Models that know an item only by its interactions.
_BEHAVIOUR_MODELS = "popular, item_to_item, als, ease, session, buy_again, blended"


def recommend(
    interactions: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Interactions: .csv, .csv.gz, .tsv or .parquet."),
    ],
    *,
    reading: InteractionOptions,
    split: Annotated[
        str, typer.Option(metavar="SPLIT", help=f"Interactions to hold out: {_SPLITS}.")
    ] = "time:0.8",
    repeats: Annotated[
        bool,
        typer.Option("--repeats", help="Allow recommendations of items that a user already had."),
    ] = False,
    k: Annotated[
        int,
        typer.Option("--limit", "-n", min=1, max=1_000, metavar="N", help="Length of a list."),
    ] = 10,
    seed: Annotated[int, typer.Option(help="Seed of random draws.")] = 0,
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Texts of the items, in a format of nearline build; required for cold-items.",
        ),
    ] = None,
    id_column: options.IdColumnOption = "",
    title_column: options.TitleColumnOption = "",
    text_column: options.TextColumnOption = "",
    embedding: options.EmbeddingOption = "",
    served: Annotated[
        bool,
        typer.Option(
            "--served/--no-served",
            help="Also build a snapshot of the training part, serve it, and measure it over gRPC.",
        ),
    ] = True,
    as_json: output.JsonFlag = False,
) -> None:
    """Measure models of behaviour on held-out interactions; all items are ranked.

    For example: nearline eval recommend --interactions ratings.csv --split last-n:5

    Settings and the blend are chosen on a validation split of the same kind inside the training
    part. Intervals are 95% over users; `served_ahead` is the gain of the running service over the
    model of the row. Models are measured without the rules of a surface; `served` is the list of
    surface home, or cart with --repeats. It is also measured without a discount for popularity, and
    with the largest; so are lists of similar items (`discounts`). With cold-items, whole items are
    held out and ranked by their texts.
    """
    from index_builder.behaviour.cold_item_evaluation import evaluate_cold_items, holds_out_items
    from index_builder.behaviour.evaluation_task import only_known_items
    from index_builder.behaviour.model_evaluation import evaluate, result_rows
    from index_builder.readers.columns import DocumentColumns as TextColumns

    # Checked before minutes of measuring.
    if holds_out_items(split) and corpus is None:
        raise InvalidRequest(
            f"{split} ranks items by their texts; name them with --corpus FILE", field="corpus"
        )
    if corpus is not None and not holds_out_items(split):
        raise InvalidRequest(
            f"--corpus is only for cold-items:SHARE; leave it out with --split {split}",
            field="corpus",
        )
    began = time.monotonic()
    read = reading.load(interactions)
    cleaned = read.interactions
    about: dict[str, object] = {"split": split}
    content = None
    if corpus is not None:
        texts = TextColumns(
            id=id_column, title=title_column, text=text_column, attributes=(), needs_text=False
        )
        content, without = _content(corpus, texts, cleaned.items, embedding, quiet=as_json)
        evaluation = evaluate_cold_items(cleaned, split, k, content, seed=seed)
        about |= {"items_without_text": without, "models_left_out": _BEHAVIOUR_MODELS}
    else:
        evaluation = evaluate(cleaned, split, k, repeats=repeats, seed=seed)
        about |= {"repeats": repeats, "only_known_items": only_known_items(split)}
    discounts: list[Mapping[str, object]] = []
    if served:
        evaluation, discounts, times = _with_served(evaluation, cleaned, split, k, content, seed)
        about |= times
    if evaluation.content_fit:
        about["validation_explained"] = round(max(evaluation.content_fit.values()), 4)
    if evaluation.choice is not None:
        about[f"validation_ndcg@{k}"] = round(evaluation.choice.validation, 4)
    if evaluation.ranker:
        about["ranker"] = evaluation.ranker
    about |= {
        "interactions": len(cleaned.user),
        "left_out": dict(read.left_out),
        "seconds": round(time.monotonic() - began, 1),
    }
    rows = result_rows(evaluation, k)
    if as_json:
        for row in rows:
            extra = {"discounts": discounts} if discounts and row is rows[-1] else {}
            output.print_json({**row, **about, **extra})
        return
    shown = [name for name in rows[0] if name != "settings"]
    output.print_table(shown, [[row[name] for name in shown] for row in rows])
    served_row = rows[-1]
    output.print_table(
        ("figure", "value"), [(served_row["model"], served_row["settings"]), *about.items()]
    )
    if discounts:
        output.print_table(tuple(discounts[0]), [list(row.values()) for row in discounts])


def _content(
    corpus: Path, columns: TextColumns, ids: Sequence[str], address: str, *, quiet: bool
) -> tuple[NDArray[np.float32], int]:
    """Returns the content vectors of items, and the number of items without text."""
    from index_builder.readers.corpus import Corpus
    from nearline_cli.evaluate.item_texts import embed_texts, read_texts

    texts = read_texts(Corpus([corpus], columns), ids)

    async def run() -> NDArray[np.float32]:
        async with open_embedder(address, quiet=quiet) as client:
            return await embed_texts(ids, texts, client, await client.info())

    return asyncio.run(run()), len(ids) - len(texts)


def _with_served(
    evaluation: Evaluation,
    interactions: Interactions,
    how: str,
    k: int,
    content: NDArray[np.float32] | None,
    seed: int,
) -> tuple[Evaluation, list[Mapping[str, object]], Mapping[str, float]]:
    """Adds the lists that a running service gives for the same task.

    Returns: Also a row for each discount for popularity; and how long the build and a list took.
    """
    from index_builder.behaviour.model_evaluation import ModelResult
    from index_builder.evaluation.recommendation_metrics import measure
    from index_builder.interactions.splits import split
    from nearline_cli.evaluate.debias_rows import debias_rows
    from nearline_cli.evaluate.recommendation_end_to_end import measure_served

    task = evaluation.task
    parts = split(interactions, how, seed)
    answered = asyncio.run(measure_served(parts, task, how, k, content=content, seed=seed))
    per_user = measure(answered.lists, task.relevant, k)
    measured = ModelResult("served", answered.settings, per_user, answered.lists)
    rows = debias_rows(answered.debiased, evaluation.train, task, k)
    times = {
        "build_s": round(answered.build_s, 1),
        "list_p50_ms": round(answered.p50_ms, 2),
        "list_p99_ms": round(answered.p99_ms, 2),
    }
    return evaluation._replace(results=[*evaluation.results, measured]), rows, times
