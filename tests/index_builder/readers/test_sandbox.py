"""The files of a corpus are read in a separate process with limits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from index_builder.documents.bad_rows import BadRows, DamagedFile
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from index_builder.readers.sandbox import SandboxReader
from tests.index_builder.readers.pdf_files import pdf

pytestmark = pytest.mark.service


def test_a_folder_of_pages_and_papers_is_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a.html").write_text("<title>A page</title><p>Some text.")
    (tmp_path / "b.HTM").write_text("<p>No title.")
    (tmp_path / "c.pdf").write_bytes(pdf([["One."], ["Two."]]))
    (tmp_path / "d.pdf").write_bytes(b"%PDF spoilt")
    bad_rows = BadRows()
    items = [row.item for row in Corpus([tmp_path], DocumentColumns()).rows(bad_rows)]
    assert [(item.id, item.title, item.text) for item in items] == [
        ("b.HTM", "b", "No title."),
        ("c.pdf", "c", "One.\n\nTwo."),
        ("deep/a.html", "A page", "Some text."),
    ]
    assert dict(items[1].attributes) == {"path": "c.pdf", "pages": 2}
    assert dict(items[2].attributes) == {"path": "deep/a.html"}
    assert str(bad_rows.sample[0]).startswith(f"{tmp_path}/d.pdf:1: broken PDF")


_IN_SANDBOX = """
import os, sys
from pathlib import Path
from index_builder.documents.bad_rows import BadRows
from index_builder.readers.sandbox import SandboxReader
reader = SandboxReader()
print(*[row.item.text for row in reader.read(Path(sys.argv[1]), "p", "p", BadRows())])
(child,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
print(Path(f"/proc/{child}/environ").read_bytes())
print(len(Path(f"/proc/{child}/net/dev").read_text().splitlines()) - 2)
reader.close()
"""
_SECRETS = {
    **dict.fromkeys(("NEARLINE_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"), "s3cret"),
    "NEARLINE_REDIS": "redis://:s3cret@127.0.0.1",
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_parser_has_no_secret_of_its_worker_and_no_network(tmp_path: Path) -> None:
    page = tmp_path / "plain.html"
    page.write_text("<p>Plain.")
    found = subprocess.run(
        [sys.executable, "-c", _IN_SANDBOX, str(page)],
        env={**os.environ, **_SECRETS, "LANG": "C.UTF-8"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    text, environment, devices = found.stdout.splitlines()
    assert text == "Plain." and "LANG=C.UTF-8" in environment and "s3cret" not in environment
    if subprocess.run(["unshare", "-n", "true"], check=False).returncode == 0:
        # Its own loopback device alone.
        assert devices == "1"


def test_a_file_that_takes_too_long_is_lost_and_the_next_is_read(tmp_path: Path) -> None:
    # For each following element, the parser walks up the nesting of unclosed ones: hours for this
    # file.
    bomb, plain = tmp_path / "bomb.html", tmp_path / "plain.html"
    bomb.write_text("<div>" * 3_000_000)
    plain.write_text("<p>Plain.")
    reader, bad_rows = SandboxReader(timeout_s=2.0), BadRows()
    try:
        with pytest.raises(DamagedFile, match="took longer than 2 s"):
            list(reader.read(bomb, "bomb", "bomb", bad_rows))
        (row,) = reader.read(plain, "plain", "plain", bad_rows)
        assert row.item.text == "Plain."
    finally:
        reader.close()


def test_a_file_that_fills_the_memory_is_lost_and_the_next_is_read(tmp_path: Path) -> None:
    # Every element is reopened in every paragraph: 1,500 x 1,500 of them.
    bomb, plain = tmp_path / "bomb.html", tmp_path / "plain.html"
    fonts = "".join(f"<font size={n}>" for n in range(1_500))
    bomb.write_text("<p>" + fonts + "<p>x" * 1_500)
    plain.write_text("<p>Plain.")
    reader, bad_rows = SandboxReader(timeout_s=60.0, memory_bytes=512 << 20), BadRows()
    try:
        with pytest.raises(DamagedFile, match="memory"):
            list(reader.read(bomb, "bomb", "bomb", bad_rows))
        (row,) = reader.read(plain, "plain", "plain", bad_rows)
        assert row.item.text == "Plain."
    finally:
        reader.close()
