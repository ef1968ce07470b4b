"""The model registry of a store: embedders, rerankers, rankers and prompts as numbered versions.

Layout:
    <store>/_models/<kind>/<name>/versions/<number:010d>/claimed, files/, card.json
    <store>/_models/<kind>/<name>/stages/<number:010d>.json
Creating `claimed` reserves the number. The card is written last; a version without a card does not
exist. Cards and stage records are created and never changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from nearline.errors import AlreadyExists, InvalidRequest, NotFound, SnapshotCorrupt
from nearline.internal.v1 import model_pb2
from nearline.store.durable import store_errors
from nearline.store.files import Digest
from nearline.store.json_records import RecordSeries, message_to_json, read_message
from nearline.store.manifest_files import list_files
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2

KINDS = ("embedder", "reranker", "ranker", "prompt")
PREFIX = "registry:"  # Prefix of settings that name a version instead of a folder.
STAGES = {
    "candidate": model_pb2.MODEL_STAGE_CANDIDATE,
    "canary": model_pb2.MODEL_STAGE_CANARY,
    "production": model_pb2.MODEL_STAGE_PRODUCTION,
    "retired": model_pb2.MODEL_STAGE_RETIRED,
}
_ROOT = "_models"  # Not a valid collection name.
_CARD = "card.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NUMBER = re.compile(r"[0-9]{10}")
# About a damaged file.
_REMEDY = "restore it"
_MAX_WORDS = 1_000


class Registry:
    """Versions of models in a store: their cards, stages and files.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._files = store.files

    def add(
        self, kind: str, name: str, card: model_pb2.ModelCard, source: Path | None = None
    ) -> snapshot_pb2.ModelRef:
        """Adds the next version of a name, whole or not at all.

        Args:
            kind: One of `KINDS`.
            name: 1..128 of A-Z a-z 0-9 . _ -, starting with a letter or digit.
            card: The card; ref.fingerprint may be set. Number, time and files are filled in.
            source: A file or a folder of files to copy. If None, only the fingerprint identifies
                the model.
        Returns: The version. If the card has no fingerprint, it is computed from the files: the
            SHA-256 of a single file, or of the output of `sha256sum` for several, sorted by path.
        Raises: InvalidRequest: an invalid kind, name or card, or no files. StoreError.
        """
        folder = _folder(kind, name)
        copy = None if source is None else self._copy(source)
        try:
            files = [] if copy is None else _files_of(copy)
            stored = model_pb2.ModelCard()
            stored.CopyFrom(card)
            del stored.files[:]
            stored.files.extend(files)
            stored.who, stored.description = card.who[:_MAX_WORDS], card.description[:_MAX_WORDS]
            stored.create_time.GetCurrentTime()
            stored.ref.kind, stored.ref.name = kind, name
            stored.ref.fingerprint = card.ref.fingerprint or digest_of(files)
            if not stored.ref.fingerprint:
                raise InvalidRequest(
                    f"{kind} {name} has neither files nor a fingerprint to identify it; "
                    "provide one of them",
                    field="fingerprint",
                )
            stored.ref.version = self._claim(folder, stored.who)
            version = _version(folder, stored.ref.version)
            if copy is not None:
                self._files.publish(copy, f"{version}/files", files[0].path)
            self._files.create(f"{version}/{_CARD}", message_to_json(stored).encode())
        finally:
            if copy is not None:
                shutil.rmtree(copy, ignore_errors=True)
        return stored.ref

    def names(self, kind: str) -> list[str]:
        """Lists the names of a kind that have a version, alphabetically."""
        return [
            name
            for name in self._files.names(f"{_ROOT}/{_checked_kind(kind)}")
            if _NAME.fullmatch(name) and self.versions(kind, name)
        ]

    def versions(self, kind: str, name: str) -> list[int]:
        """Lists the versions of a name, newest first; empty if the name does not exist."""
        folder = _folder(kind, name)
        return [
            int(one)
            for one in reversed(self._files.names(f"{folder}/versions"))
            if _NUMBER.fullmatch(one) and self._files.holds(f"{folder}/versions/{one}/{_CARD}")
        ]

    def show(self, kind: str, name: str, version: int) -> model_pb2.ModelCard:
        """Reads the card of a version.

        Raises: NotFound: names the existing versions. SnapshotCorrupt: the card is unreadable.
        """
        path = f"{_version(_folder(kind, name), version)}/{_CARD}"
        if not self._files.holds(path):
            existing = ", ".join(map(str, self.versions(kind, name)))
            raise NotFound(
                f"{kind} {name} has no version {version}; "
                + (f"existing versions: {existing}" if existing else f"no such {kind}")
                + f": `nearline models list --store {self._files.url}` shows all"
            )
        return read_message(self._files, path, model_pb2.ModelCard(), _REMEDY)

    def cards(self, kind: str) -> Iterator[model_pb2.ModelCard]:
        """Yields all cards of a kind, sorted by name, newest version first."""
        for name in self.names(kind):
            for version in self.versions(kind, name):
                yield self.show(kind, name, version)

    def find(self, kind: str, fingerprint: str, name: str = "") -> snapshot_pb2.ModelRef | None:
        """Returns the newest version with a fingerprint, or None.

        Args:
            name: Search only this name; empty searches all names.
        """
        for one in [name] if name else self.names(kind):
            for version in self.versions(kind, one):
                ref = self.show(kind, one, version).ref
                if ref.fingerprint == fingerprint:
                    return ref
        return None

    def stage(
        self, kind: str, name: str, version: int, stage: str, *, who: str = "", why: str = ""
    ) -> model_pb2.StageRecord:
        """Sets the stage of a version; a previous production version is retired.

        Args:
            stage: One of `STAGES`.
            who, why: Stored in the stage record.
        Raises: NotFound: no such version. InvalidRequest: no such stage.
        """
        if stage not in STAGES:
            raise InvalidRequest(
                f"stage is {stage!r}; {', '.join(STAGES)} are known", field="stage"
            )
        self.show(kind, name, version)  # Raises if it does not exist.
        record = model_pb2.StageRecord(
            version=version, stage=STAGES[stage], who=who[:_MAX_WORDS], why=why[:_MAX_WORDS]
        )
        record.create_time.GetCurrentTime()
        stages = self._stages(kind, name)
        while True:
            record.number = 1 + max((int(one[:10]) for one in stages.names()), default=0)
            try:
                stages.create(record.number, record)
            except AlreadyExists:
                continue  # Another process took that number: try the next one.
            return record

    def history(self, kind: str, name: str) -> list[model_pb2.StageRecord]:
        """Reads the stage records of a name, newest first."""
        return list(self._stages(kind, name).newest_first())

    def stages_of(self, kind: str, name: str) -> dict[int, str]:
        """Returns the stage of each version of a name; a version without a stage is a candidate."""
        stages = dict.fromkeys(self.versions(kind, name), "candidate")
        words = {number: word for word, number in STAGES.items()}
        for record in reversed(self.history(kind, name)):
            word = words.get(record.stage, "candidate")
            if word == "production":
                stages = {
                    one: "retired" if stage == word and one != record.version else stage
                    for one, stage in stages.items()
                }
            if record.version in stages:
                stages[record.version] = word
        return stages

    def in_production(self, kind: str, name: str) -> int | None:
        """Returns the version in production, or None."""
        stages = self.stages_of(kind, name)
        return next((one for one, stage in stages.items() if stage == "production"), None)

    def resolve(self, text: str, kind: str = "") -> snapshot_pb2.ModelRef:
        """Resolves "name" (its newest version), "name@3" or "name@production" to a version.

        Args:
            text: One of these, optionally prefixed with "kind/" or "registry:".
            kind: Required kind; empty accepts any.
        Raises: NotFound: the name or version does not exist, or none is in production.
            InvalidRequest: the text is malformed, or several kinds have the name.
        """
        prefix, _, rest = text.removeprefix(PREFIX).rpartition("/")
        name, at, selector = rest.partition("@")
        if prefix and kind and prefix != kind:
            raise InvalidRequest(f"{text!r} is not of kind {kind}; write {kind}/NAME", field="name")
        valid_selector = not at or selector == "production" or selector.isdecimal()
        if not _NAME.fullmatch(name) or not valid_selector:
            raise InvalidRequest(
                f"{text!r} names no version; write NAME, NAME@3 or NAME@production", field="name"
            )
        candidates = [prefix or kind] if prefix or kind else KINDS
        kinds = [one for one in candidates if self.versions(one, name)]
        if not kinds:
            raise NotFound(
                f"there is no {prefix or kind or 'model'} {name}; "
                f"`nearline models list --store {self._files.url}` lists all models"
            )
        if len(kinds) > 1:
            raise InvalidRequest(
                f"{name} is the name of several kinds ({', '.join(kinds)}); "
                f"write {kinds[0]}/{name}",
                field="name",
            )
        if selector == "production":
            version = self.in_production(kinds[0], name)
            if version is None:
                raise NotFound(
                    f"no version of {kinds[0]} {name} is in production; `nearline models promote "
                    f"{name} --stage production --store {self._files.url}` puts the newest there"
                )
        else:
            version = int(selector) if selector else self.versions(kinds[0], name)[0]
        return self.show(kinds[0], name, version).ref

    def fetch(self, ref: snapshot_pb2.ModelRef) -> Path:
        """Provides the files of a version in a local folder, verified against its card.

        Returns: The folder.
        Raises: NotFound: the version does not exist or has no files. SnapshotCorrupt: a file is
            missing, or its size or SHA-256 differs.
        """
        card = self.show(ref.kind, ref.name, ref.version)
        if not card.files:
            raise NotFound(
                f"{ref.kind} {ref.name}@{ref.version} has no files in the registry, only a "
                "fingerprint; add a version with nearline models add --folder DIR"
            )
        folder = f"{_version(_folder(ref.kind, ref.name), ref.version)}/files"
        for entry in card.files:
            # Cards are untrusted input: no path may leave the version's folder.
            if not set(entry.path.split("/")).isdisjoint({"", ".", ".."}):
                raise SnapshotCorrupt(
                    f"the card of {ref.kind} {ref.name}@{ref.version} names a file {entry.path!r}, "
                    "which is outside its folder; add the version again"
                )
            self._files.fetch(f"{folder}/{entry.path}", Digest(entry.bytes, entry.sha256))
        return self._files.folder / folder

    def _claim(self, folder: str, who: str) -> int:
        """Reserves the next number; numbers whose upload failed stay unused."""
        while True:
            numbers = [n for n in self._files.names(f"{folder}/versions") if _NUMBER.fullmatch(n)]
            number = 1 + max(map(int, numbers), default=0)
            with contextlib.suppress(AlreadyExists):
                # Unique, so that two processes of one user never both own a number.
                claim = f"{who}\n{secrets.token_hex(8)}\n".encode()
                self._files.create(f"{_version(folder, number)}/claimed", claim)
                return number

    def _copy(self, source: Path) -> Path:
        """Copies files into the file system of the store, so that they can be moved into place."""
        copy = self._files.folder / _ROOT / f".tmp-{secrets.token_hex(8)}"
        with store_errors(source):
            found = (
                [source]
                if source.is_file()
                else sorted(one for one in source.rglob("*") if one.is_file())
            )
            if not found:
                raise InvalidRequest(f"{source} holds no files; name a file or a folder of files")
        with store_errors(copy):
            for file in found:
                part = Path(file.name) if file == source else file.relative_to(source)
                (copy / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy / part)
        return copy

    def _stages(self, kind: str, name: str) -> RecordSeries[model_pb2.StageRecord]:
        folder = f"{_folder(kind, name)}/stages"
        return RecordSeries(self._files, folder, model_pb2.StageRecord, _REMEDY)


def digest_of(files: list[snapshot_pb2.FileEntry]) -> str:
    """Returns the SHA-256 of a file, or of the `sha256sum` output of several; "" of none."""
    if len(files) < 2:
        return files[0].sha256 if files else ""
    lines = "".join(f"{one.sha256}  {one.path}\n" for one in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def name_of(model: str) -> str:
    """Returns the registry name of a model: the last part of its own name, without a version.

    "sentence-transformers/all-MiniLM-L6-v2" and "all-MiniLM-L6-v2@3" give all-MiniLM-L6-v2.
    """
    last = model.rstrip("/").rpartition("/")[2].partition("@")[0]
    allowed = re.sub(r"[^A-Za-z0-9._-]+", "-", last).lstrip("._-")[:128]
    return allowed or "model"


def describe_ref(ref: snapshot_pb2.ModelRef) -> str:
    """Returns the readable form of a version: "embedder all-MiniLM-L6-v2@1"."""
    return f"{ref.kind} {ref.name}@{ref.version}"


def _files_of(folder: Path) -> list[snapshot_pb2.FileEntry]:
    with store_errors(folder):
        return list_files(folder)


def _checked_kind(kind: str) -> str:
    if kind not in KINDS:
        raise InvalidRequest(f"kind is {kind!r}; {', '.join(KINDS)} are known", field="kind")
    return kind


def _folder(kind: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"name {name!r} is not allowed; use 1..128 of A-Z a-z 0-9 . _ -, starting with a "
            "letter or digit",
            field="name",
        )
    return f"{_ROOT}/{_checked_kind(kind)}/{name}"


def _version(folder: str, number: int) -> str:
    return f"{folder}/versions/{number:010d}"
