"""Model cards of `nearline models add`: from options, a running service, or files."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from nearline.clients import EmbeddingClient
from nearline.errors import InvalidRequest
from nearline.internal.v1 import model_pb2
from nearline.store.durable import sha256_of, store_errors
from nearline.v1 import snapshot_pb2


async def card_from_service(address: str, kind: str) -> model_pb2.ModelCard:
    """Returns the card of a model of a running embedding service.

    Raises:
        InvalidRequest: The service has no model of that kind.
    """
    from index_builder.pipeline.model_registration import embedder_card

    async with EmbeddingClient(address) as client:
        info = await client.info()
    if kind == "embedder":
        return embedder_card(info)
    if kind == "reranker" and info.reranker_fingerprint:
        return model_pb2.ModelCard(
            ref=snapshot_pb2.ModelRef(fingerprint=info.reranker_fingerprint),
            settings={"model": info.reranker},
        )
    raise InvalidRequest(
        f"the embedding service at {address} has no {kind}; leave --embedding out, or name a "
        "service that has one",
        field="embedding",
    )


def complete_card(
    card: model_pb2.ModelCard,
    *,
    fingerprint: str,
    description: str,
    metrics: Sequence[str],
    training_data: Path | None,
) -> None:
    """Adds the options of the command to a card.

    Args:
        card: Card to complete.
        fingerprint: Fingerprint of the model. Optional.
        description: Description of the model.
        metrics: Figures, each NAME=VALUE.
        training_data: File whose hash is recorded. Optional.
    Raises:
        InvalidRequest: A metric is malformed, or the service has a different fingerprint.
    """
    from retrieval.snapshots.aliases import operator_name

    if fingerprint and card.ref.fingerprint not in ("", fingerprint):
        raise InvalidRequest(
            f"--fingerprint is {fingerprint}, the service has {card.ref.fingerprint}; leave one of "
            "--fingerprint and --embedding out",
            field="fingerprint",
        )
    card.who, card.description = operator_name(), description
    card.ref.fingerprint = card.ref.fingerprint or fingerprint
    for metric in metrics:
        name, equals, value = metric.rpartition("=")
        try:
            card.metrics[name] = float(value)
        except ValueError:
            name = ""
        if not name or not equals:
            raise InvalidRequest(
                f"--metric {metric!r} is not a figure; write NAME=VALUE, such as ndcg@10=0.42",
                field="metric",
            )
    if training_data is not None:
        with store_errors(training_data):
            card.training_data_sha256 = sha256_of(training_data)


def check_folder(card: model_pb2.ModelCard, kind: str, folder: Path) -> None:
    """Sets the fingerprint under which the model in a folder is served.

    Args:
        card: Card to complete.
        kind: Kind of the model; only embedders and rerankers have such a fingerprint.
        folder: Folder with the model.
    Raises:
        InvalidRequest: The card has a different fingerprint.
        SettingsError: The model cannot be served.
    """
    if kind == "embedder":
        from embedding.model import read_model

        model = read_model(folder)
        found = model.fingerprint
        for name, number in (("dim", model.dim), ("max_tokens", model.max_tokens)):
            card.settings[name] = str(number)
    elif kind == "reranker":
        from embedding.pair_model import find_pair_model

        found = find_pair_model(str(folder), kind).fingerprint
    else:
        return
    if card.ref.fingerprint not in ("", found):
        raise InvalidRequest(
            f"the model in {folder} has fingerprint {found}, not {card.ref.fingerprint}; add a "
            "model that is served with fewer --dimensions without --folder",
            field="fingerprint",
        )
    card.ref.fingerprint = found


@contextlib.contextmanager
def shipped_prompt() -> Iterator[Path]:
    """Yields a file with the prompt that the generation service uses."""
    from generation.writers.instructions import DEFAULT_INSTRUCTIONS

    with tempfile.TemporaryDirectory(prefix="nearline-prompt-") as folder:
        file = Path(folder) / f"{DEFAULT_INSTRUCTIONS.version}.txt"
        file.write_text(DEFAULT_INSTRUCTIONS.text, "utf-8")
        yield file
