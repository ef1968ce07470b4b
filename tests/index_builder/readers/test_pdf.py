"""Text of PDF files: pages in order, and a clear reason if there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from pypdf import PdfReader, PdfWriter

from index_builder.readers import pdf as portable
from index_builder.readers.pdf import parse_pdf
from index_builder.readers.protocol import ParsedDocument, UnreadableFile
from tests.index_builder.readers.pdf_files import pdf

PAGES = [["The Rhine rises in the Alps.", "It is 1233 km long."], [], ["It ends in the sea."]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rivers.pdf"
    path.write_bytes(pdf(PAGES, "Rivers"))
    return path


def _encrypt(path: Path, user: str) -> None:
    writer = PdfWriter(clone_from=PdfReader(path))
    writer.encrypt(user, owner_password="owner", algorithm="AES-256")
    with path.open("wb") as stream:
        writer.write(stream)


def test_pages_come_in_order_with_an_empty_line_between_them(path: Path) -> None:
    text = "The Rhine rises in the Alps.\nIt is 1233 km long.\n\nIt ends in the sea."
    assert parse_pdf(path) == ParsedDocument("Rivers", text, 3)


def test_a_file_that_only_restricts_printing_is_read(path: Path) -> None:
    _encrypt(path, user="")
    assert parse_pdf(path).text.startswith("The Rhine")


def test_a_file_with_a_password_says_so(path: Path) -> None:
    _encrypt(path, user="secret")
    with pytest.raises(UnreadableFile, match="encrypted with a password; remove it"):
        parse_pdf(path)


def test_scanned_pages_give_the_reason(path: Path) -> None:
    path.write_bytes(pdf([[], []]))
    with pytest.raises(UnreadableFile, match=r"no text in 2 pages.*OCR"):
        parse_pdf(path)


@pytest.mark.parametrize(
    "spoilt",
    [
        b"",
        b"%PDF",
        b"no pdf at all",
        pdf(PAGES)[:200],
        pdf(PAGES).replace(b"/Kids [4 0 R", b"/Kids [2 0 R"),
        pdf(PAGES).replace(b"/Contents 5 0 R", b"/Contents " + b"[" * 5_000),
    ],
)
def test_a_broken_file_gives_a_reason_and_no_other_error(path: Path, spoilt: bytes) -> None:
    path.write_bytes(spoilt)
    with pytest.raises(UnreadableFile, match=r"broken PDF|no text in"):
        parse_pdf(path)


@pytest.mark.parametrize(
    ("bound", "reason"),
    [
        ("MAX_BYTES", "bytes; 2 are allowed"),
        ("MAX_PAGES", "3 pages; 2 are allowed"),
        ("MAX_CHARACTERS", "more than 2 characters"),
    ],
)
def test_files_over_the_limits_are_refused(
    path: Path, bound: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, bound, 2)
    with pytest.raises(UnreadableFile, match=reason):
        parse_pdf(path)
