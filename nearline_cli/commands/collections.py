"""`nearline collections`: creates, lists, describes and drops collections while they are served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format

from nearline.clients.blocking import BlockingAdminClient
from nearline.counts import counted
from nearline.errors import InvalidRequest
from nearline.items.search_languages import parse_search_language, shown_languages
from nearline.items.search_weights import parse_search_weight, shown_weights
from nearline.store.snapshot import kind_name
from nearline.v1 import admin_pb2
from nearline_cli.terminal import confirmation, options, output

app = typer.Typer(no_args_is_help=True, help="Create, list, describe and drop collections.")
_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the collection.")]


@app.command()
def create(
    name: _Name,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=KIND",
            help="Attribute that filters can use at once; its kind is string, int, double, bool or "
            "time, or string[], int[] and so on if items have lists of them. Repeatable. Others "
            "can be used once the first compaction has seen them.",
        ),
    ] = None,
    search_weight: options.SearchWeightOption = None,
    search_language: options.SearchLanguageOption = None,
    synonyms: options.SynonymsOption = None,
    language: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help='Language of stemmer and stop words; "none": neither. \\[default: english]',
        ),
    ] = "",
    shards: Annotated[
        int,
        typer.Option(metavar="N", help="Shards. \\[default: one, or as many as have servers]"),
    ] = 0,
    dim: Annotated[
        int, typer.Option(metavar="N", help="Numbers in a vector, if you bring the vectors.")
    ] = 0,
    metric: Annotated[
        str,
        typer.Option(metavar="NAME", help="cosine or inner_product. \\[default: cosine]"),
    ] = "",
    fingerprint: Annotated[
        str,
        typer.Option(
            metavar="HEX", help="Embedding model. \\[default: the only one that the router knows]"
        ),
    ] = "",
    chunk_tokens: Annotated[
        int, typer.Option(metavar="N", help="Maximum tokens of a chunk. \\[default: 240]")
    ] = 0,
    why: options.WhyOption = "",
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    as_json: output.JsonFlag = False,
) -> None:
    """Create an empty collection: it can be written and searched at once.

    For example: nearline collections create shop --attribute year=int --attribute "tags=string[]"
    """
    lines = _synonym_lines(synonyms)
    with BlockingAdminClient(address) as client:
        made = client.create_collection(
            name,
            fingerprint=fingerprint,
            dim=dim,
            metric=metric,
            shards=shards,
            language=language,
            chunk_tokens=chunk_tokens,
            attributes=dict(map(_attribute, attribute or ())),
            search_weights=dict(map(parse_search_weight, search_weight or ())),
            search_languages=dict(map(parse_search_language, search_language or ())),
            synonyms=lines,
            why=why,
        )
    if as_json:
        output.print_json(_record(made))
        return
    print(f"created {name}: {_described(made)}")
    output.print_note(f"add items: nearline items upsert FILE --collection {name}")


@app.command("list")
def list_collections(
    address: options.AddressOption = options.DEFAULT_ADDRESS, as_json: output.JsonFlag = False
) -> None:
    """List the collections that you may read."""
    with BlockingAdminClient(address) as client:
        found = list(client.collections())
    if as_json:
        output.print_json({"collections": [_record(one) for one in found]})
        return
    if not found:
        output.print_note("there is none; create one: nearline collections create NAME")
        return
    columns = ("collection", "documents", "snapshot", "shards", "model")
    output.print_table(
        columns,
        [(one.name, one.documents, one.snapshot_id, one.shards, _model_of(one)) for one in found],
    )


@app.command()
def show(
    name: _Name,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    as_json: output.JsonFlag = False,
) -> None:
    """Describe a collection."""
    with BlockingAdminClient(address) as client:
        found = client.collection(name)
    if as_json:
        output.print_json(_record(found))
        return
    print(_described(found))
    output.print_table(
        ("attribute", "kind"), [(one.name, kind_name(one)) for one in found.attributes]
    )


@app.command()
def name(
    new: Annotated[str, typer.Argument(metavar="NEW", help="Second name: one that none has.")],
    target: Annotated[str, typer.Argument(metavar="NAME", help="Collection that it points to.")],
    why: options.WhyOption = "",
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    as_json: output.JsonFlag = False,
) -> None:
    """Give a collection a second name, or move one here from another collection.

    For example: nearline collections name shop shop-2026
    """
    _set_name(new, target, why, address, f"{new} points to {target}", as_json=as_json)


@app.command()
def free(
    old: Annotated[str, typer.Argument(metavar="NAME", help="Second name to free.")],
    why: options.WhyOption = "",
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    as_json: output.JsonFlag = False,
) -> None:
    """Free a second name: requests for it get NOT_FOUND."""
    _set_name(old, "", why, address, f"{old} is free", as_json=as_json)


@app.command()
def drop(
    name: _Name,
    yes: confirmation.YesOption = False,
    why: options.WhyOption = "",
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    as_json: output.JsonFlag = False,
) -> None:
    """Remove a collection for good: its snapshots, live changes, users and queued documents.

    Its name is free afterwards. If this is interrupted, run it again.
    """
    confirmation.confirm(f"remove {name!r} with its documents and users for good", yes=yes)
    with BlockingAdminClient(address) as client:
        receipt = client.drop_collection(name, why=why)
    output.print_result(
        json_format.MessageToDict(receipt, preserving_proto_field_name=True),
        f"dropped {name}: {counted(receipt.snapshots, 'snapshot')} and "
        f"{counted(receipt.redis_keys, 'key')} in Redis",
        as_json=as_json,
    )


def _set_name(name: str, target: str, why: str, address: str, done: str, *, as_json: bool) -> None:
    with BlockingAdminClient(address) as client:
        names = client.set_collection_name(name, target, why=why)
    output.print_result({"names": names}, done, as_json=as_json)


def _synonym_lines(path: Path | None) -> Sequence[str]:
    """Returns the lines of a file, which are checked here, so that errors name it."""
    if path is None:
        return ()
    from retrieval.index.lexical.synonym_rules import parse_synonyms, read_synonym_lines

    lines = read_synonym_lines(path)
    parse_synonyms(lines, path.name)
    return lines


def _attribute(text: str) -> tuple[str, str]:
    name, separator, kind = text.partition("=")
    if not (name and separator and kind):
        raise InvalidRequest(
            f"{text!r} is not NAME=KIND, for example price=double", field="attribute"
        )
    return name, kind


def _model_of(found: admin_pb2.Collection) -> str:
    return found.embedder.model or "your own vectors"


def _described(found: admin_pb2.Collection) -> str:
    words = found.language or "no keyword search"
    if found.search_weights:
        words += f" (search weights {shown_weights(found.search_weights)})"
    if found.search_languages:
        words += f" (search languages {shown_languages(found.search_languages)})"
    if found.synonym_rules:
        words += f" ({counted(found.synonym_rules, 'rule')} of synonyms)"
    return (
        f"{counted(found.documents, 'document')}, {counted(found.shards, 'shard')}, "
        f"{_model_of(found)} "
        f"({found.dim} numbers, {found.metric}), {words}, snapshot {found.snapshot_id}"
        + (f", also named {', '.join(found.names)}" if found.names else "")
    )


def _record(found: admin_pb2.Collection) -> dict[str, object]:
    return json_format.MessageToDict(
        found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
