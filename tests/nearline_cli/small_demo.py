"""`nearline` with a demo of another corpus: `python -m tests.nearline_cli.small_demo FILE demo`."""

from __future__ import annotations

import sys
from pathlib import Path

from index_builder.documents import python_docs
from nearline_cli.main import main

if __name__ == "__main__":
    data = Path(sys.argv[1]).read_bytes()

    def write_corpus(path: Path) -> int:
        """Writes the given corpus instead of the documentation of this Python."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return data.count(b"\n")

    python_docs.write_corpus = write_corpus
    main(sys.argv[2:])
