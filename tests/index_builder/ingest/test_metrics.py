"""The metrics by which workers are scaled, and the imports of service and worker."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from index_builder.ingest import metrics
from nearline.contract import IngestWorker, QueueState

ROOT = Path(__file__).parents[3]
START = datetime(2026, 1, 1, tzinfo=UTC)


def worker(name: str, documents_per_s: float) -> IngestWorker:
    return IngestWorker(
        worker_id=name, in_hand=0, documents_per_s=documents_per_s, start_time=START
    )


def test_metrics_export_the_state_of_the_queue() -> None:
    workers = [worker("a", 2.0), worker("b", 5.0)]
    metrics.show(
        QueueState(waiting=7, in_hand=2, delayed=1, dead=3, documents_per_s=7.0, workers=workers)
    )
    wanted = {
        "lag": 10.0,
        "waiting": 7.0,
        "in_hand": 2.0,
        "delayed": 1.0,
        "dead_letters": 3.0,
        "workers": 2.0,
        "documents_per_second": 7.0,
        "worker_documents_per_second": 5.0,
    }
    for name, value in wanted.items():
        assert REGISTRY.get_sample_value(f"nearline_ingest_{name}") == value
    metrics.show(QueueState())
    assert REGISTRY.get_sample_value("nearline_ingest_worker_documents_per_second") == 0.0


def test_every_metric_named_in_the_guide_exists() -> None:
    named = set(
        re.findall(r"nearline_ingest_\w+", (ROOT / "docs" / "guides" / "scaling.md").read_text())
    )
    # The first query of a metrics adapter.
    named.remove("nearline_ingest_work_seconds")
    known = {one.name for one in REGISTRY.collect() if one.name.startswith("nearline_ingest_")}
    assert len(named) > 5 and named - known == set()


@pytest.mark.parametrize("module", ["index_builder.ingest.__main__", "index_builder.ingest.worker"])
def test_service_and_worker_do_not_import_build_dependencies(module: str) -> None:
    # Workers are started when documents wait, and there are many of them.
    code = (
        f"import sys, {module};"
        "sys.exit(', '.join({'faiss', 'pyarrow', 'torch', 'scipy', 'ray'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
