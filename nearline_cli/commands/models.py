"""`nearline models`: versions of embedders, rerankers, rankers and prompts in a store."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format

from nearline.errors import InvalidRequest
from nearline.internal.v1 import model_pb2
from nearline.store.registry import KINDS, STAGES, Registry, describe_ref
from nearline.store.snapshot import Store
from nearline_cli.terminal import options, output
from nearline_cli.terminal.progress import open_progress

app = typer.Typer(
    no_args_is_help=True, help="Versions of embedders, rerankers, rankers and prompts in a store."
)

_NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@VERSION]",
        help="NAME (its newest version), NAME@3 or NAME@production; KIND/NAME if two kinds share "
        "the name.",
    ),
]


@app.command()
def add(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"One of {', '.join(KINDS)}.")],
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the model, unique within its kind.")
    ],
    store: options.StoreOption = options.DEFAULT_STORE,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder whose files are stored.")
    ] = None,
    file: Annotated[Path | None, typer.Option(metavar="FILE", help="File to store.")] = None,
    fingerprint: Annotated[
        str,
        typer.Option(
            metavar="HEX",
            help="Fingerprint of the model. \\[default: for the folder of an embedder or reranker, "
            "the one under which it is served; for other files, their SHA-256]",
        ),
    ] = "",
    embedding: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Embedding service whose report gives the fingerprint and settings of its "
            "embedder or reranker.",
        ),
    ] = "",
    training_data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Training data; its SHA-256 is stored."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Figure to record, such as ndcg@10=0.42; may be repeated."
        ),
    ] = None,
    description: Annotated[str, typer.Option(help="Description of the model.")] = "",
    parent: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[@VERSION]", help="Version from which it was made; may be repeated."
        ),
    ] = None,
    as_json: output.JsonFlag = False,
) -> None:
    """Add the next version of a model: its files, or its fingerprint.

    For example: nearline models add embedder my-model --folder models/my-model --metric
    ndcg@10=0.42

    A prompt without a file is the one that the generation service uses.
    """
    from nearline_cli.compose import model_cards

    registry = Registry(Store.open(store))
    if folder is not None and file is not None:
        raise InvalidRequest("--folder and --file exclude each other; use one", field="file")
    parents = [registry.resolve(version) for version in parent or ()]
    card = model_pb2.ModelCard()
    if embedding:
        card = asyncio.run(model_cards.card_from_service(embedding, kind))
    model_cards.complete_card(
        card,
        fingerprint=fingerprint,
        description=description,
        metrics=metric or (),
        training_data=training_data,
    )
    card.parents.extend(parents)
    source = folder or file
    if folder is not None:
        model_cards.check_folder(card, kind, folder)
    if kind == "prompt" and source is None and not card.ref.fingerprint:
        with model_cards.shipped_prompt() as shipped:
            ref = registry.add(kind, name, card, shipped)
    else:
        ref = registry.add(kind, name, card, source)
    added = registry.show(ref.kind, ref.name, ref.version)
    text = f"{describe_ref(ref)}, fingerprint {ref.fingerprint}"
    output.print_result(_record(added, "candidate"), text, as_json=as_json)


@app.command("list")
def list_models(
    kind: Annotated[
        str, typer.Argument(metavar="[KIND]", help="Only this kind.", show_default=False)
    ] = "",
    store: options.StoreOption = options.DEFAULT_STORE,
    as_json: output.JsonFlag = False,
) -> None:
    """List all versions by kind and name, newest first."""
    registry = Registry(Store.open(store))
    rows = []
    for one in [kind] if kind else KINDS:
        for name in registry.names(one):
            stages = registry.stages_of(one, name)
            cards = (registry.show(one, name, version) for version in stages)
            rows += [(card, stages[card.ref.version]) for card in cards]
    if as_json:
        for card, stage in rows:
            output.print_json(_record(card, stage))
        return
    output.print_table(
        ("kind", "name", "version", "stage", "fingerprint", "files", "added"),
        [
            (
                card.ref.kind,
                card.ref.name,
                card.ref.version,
                stage,
                card.ref.fingerprint[:16],
                len(card.files),
                card.create_time.ToJsonString(),
            )
            for card, stage in rows
        ],
    )


@app.command()
def show(
    name: _NameArgument,
    store: options.StoreOption = options.DEFAULT_STORE,
    as_json: output.JsonFlag = False,
) -> None:
    """Show a version: its figures, origin and stages."""
    registry = Registry(Store.open(store))
    ref = registry.resolve(name)
    card = registry.show(ref.kind, ref.name, ref.version)
    stage = registry.stages_of(ref.kind, ref.name)[ref.version]
    history = [one for one in registry.history(ref.kind, ref.name) if one.version == ref.version]
    if as_json:
        output.print_json(_record(card, stage) | {"stages": [_plain(record) for record in history]})
        return
    output.print_table(("field", "value"), _described(card, stage, history))


@app.command()
def promote(
    name: _NameArgument,
    store: options.StoreOption = options.DEFAULT_STORE,
    stage: Annotated[
        str, typer.Option(metavar="STAGE", help=f"One of {', '.join(STAGES)}.")
    ] = "production",
    why: options.WhyOption = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Record the stage of a version; the previous production version retires.

    For example: nearline models promote my-model@3 --stage production

    This only adds a record. The version is served once a snapshot that names it goes live, or once
    a service whose setting is registry:NAME@production restarts.
    """
    from retrieval.snapshots import aliases

    registry = Registry(Store.open(store))
    ref = registry.resolve(name)
    record = registry.stage(
        ref.kind, ref.name, ref.version, stage, who=aliases.operator_name(), why=why
    )
    output.print_result(
        {"kind": ref.kind, "name": ref.name} | _plain(record),
        f"{describe_ref(ref)} is {stage} (record {record.number})",
        as_json=as_json,
    )


@app.command("train-entailment")
def train_entailment(
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder with claims_SPLIT.jsonl and abstracts.jsonl, as in SciFact: statements, "
            "with the sentences that support or contradict them.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .safetensors file to write.")],
    split: Annotated[str, typer.Option(help="Labels to learn from.")] = "train",
    without: Annotated[
        str,
        typer.Option(
            metavar="SPLIT",
            help="Leave out claims that share a document with this split, which is to be measured.",
        ),
    ] = "",
    minutes: Annotated[
        float, typer.Option(metavar="N", min=0.1, max=1_440, help="Maximum time of training.")
    ] = 30.0,
    as_json: output.JsonFlag = False,
) -> None:
    """Learn from your labels which sources support which statements.

    For example: nearline models train-entailment --data labels --out entailment.safetensors

    Training starts from the shipped judge. Set NEARLINE_EMBEDDING_ENTAILMENT to the file to serve
    the result. Needs the extras torch and calibration of nearline-server.
    """
    from generation.training.labelled_claims import load_labelled_claims
    from nearline_cli.compose.entailment_trainer import check_out, train_judge

    check_out(out)
    claims = load_labelled_claims(data, split)
    if without:
        barred = {one.document for one in load_labelled_claims(data, without)}
        claims = [one for one in claims if one.document not in barred]
    with open_progress(as_json) as bars:
        start, done = time.monotonic(), 0
        bars.start("train", 100, "%")

        def show(share: float, loss: float) -> None:
            nonlocal done
            bars.advance(int(100 * share) - done)
            done = int(100 * share)

        learned = train_judge(claims, out, max_s=60 * minutes, progress=show)
        bars.end(time.monotonic() - start)
    output.print_result(
        {"file": str(out)} | learned._asdict(),
        f"{out}: {learned.passed:.0%} of supported and {learned.passed_contradicted:.0%} of "
        f"contradicted claims pass, of {learned.held_out} held-out ones (AUROC "
        f"{learned.auroc:.3f})",
        as_json=as_json,
    )


def _record(card: model_pb2.ModelCard, stage: str) -> dict[str, object]:
    plain = json_format.MessageToDict(card, preserving_proto_field_name=True)
    files = plain.pop("files", [])
    return {
        **plain.pop("ref"),
        "stage": stage,
        **plain,
        "files": [one["path"] for one in files],
        "bytes": sum(entry.bytes for entry in card.files),
    }


def _plain(record: model_pb2.StageRecord) -> dict[str, object]:
    words = {number: word for word, number in STAGES.items()}
    return {
        "number": record.number,
        "version": record.version,
        "stage": words.get(record.stage, ""),
        "who": record.who,
        "why": record.why,
        "create_time": record.create_time.ToJsonString(),
    }


def _described(
    card: model_pb2.ModelCard, stage: str, history: list[model_pb2.StageRecord]
) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("model", describe_ref(card.ref)),
        ("stage", stage),
        ("fingerprint", card.ref.fingerprint),
        ("added", f"{card.create_time.ToJsonString()} by {card.who}"),
        ("description", card.description),
        ("training data", card.training_data_sha256),
        ("snapshot", f"{card.collection} {card.snapshot_id}".strip()),
        ("made from", ", ".join(describe_ref(parent) for parent in card.parents)),
    ]
    rows += [(f"metric {name}", f"{card.metrics[name]:.4f}") for name in sorted(card.metrics)]
    rows += [(f"setting {name}", card.settings[name]) for name in sorted(card.settings)]
    rows += [(f"file {file.path}", output.format_bytes(file.bytes)) for file in card.files]
    for record in history:
        plain = _plain(record)
        rows.append((f"stage {record.number}", f"{plain['stage']} by {record.who}: {record.why}"))
    return [(name, value) for name, value in rows if value]
