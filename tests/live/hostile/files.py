"""Hostile files: how each is written, and what its reader says."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MB = 1 << 20
DEEP = 100_000


@dataclass(frozen=True, slots=True)
class File:
    """A hostile file.

    name: Its name, which says what is hostile about it; the ending determines the format.
    write: Writes it to a path.
    says: Part of the reason why it, or a row of it, is refused; empty: it is read, however odd.
    endless: Whether only the limit of time ends its reader.
    """

    name: str
    write: Callable[[Path], object]
    says: str = ""
    endless: bool = False


def _bytes(
    name: str, content: bytes | Callable[[], bytes], says: str = "", *, endless: bool = False
) -> File:
    def write(path: Path) -> None:
        path.write_bytes(content() if callable(content) else content)

    return File(name, write, says, endless)


def _row(name: str, fields: str, says: str = "") -> File:
    """Returns JSON lines of one row with more fields."""
    return _bytes(f"{name}.jsonl", f'{{"id": "a", "text": "x", {fields}}}'.encode(), says)


_GZIP = gzip.compress(b"x" * 10 * MB)
_CELL = 16 * MB


def hostile_files() -> list[File]:
    """Returns the table."""
    return [*_prose(), *_json_lines(), *_tables(), *_pages(), *_papers()]


def _prose() -> list[File]:
    return [
        # Cubic time once: a heading with spaces, signs or fences that never end.
        _bytes("heading-spaces.md", b"# a" + b" " * 10_000 + b"b"),
        _bytes("heading-signs.md", b"# " * 500_000 + b"x"),
        _bytes("fences.md", b"```\n~~~\n" * 20_000 + b"x"),
        _bytes("empty.md", b"", "empty"),
        _bytes("spaces.txt", b" \n" * 1_000, "only white space"),
        _bytes("latin1.txt", b"caf\xe9", "not UTF-8"),
        _bytes("gzip.md", _GZIP, "not UTF-8"),
        _bytes("surrogate.txt", b"\xed\xa0\x80", "not UTF-8"),
        _bytes("overlong.txt", b"\xc0\xaf", "not UTF-8"),
        _bytes("utf16.txt", "text without a mark".encode("utf-16-le"), "NUL"),
        _bytes("nul.md", b"a\0b", "NUL"),
        _bytes("binary.txt", b"\x7fELF" + bytes(range(256)), "not UTF-8"),
        File("sparse.txt", lambda path: os.truncate(_touched(path), 65 * MB), "are allowed"),
    ]  # fmt: skip


def _touched(path: Path) -> Path:
    path.touch()
    return path


def _json_lines() -> list[File]:
    return [
        _row("digits", '"n": ' + "7" * 5_000, "4300"),
        _row("exponent", '"n": 1e400', "not finite"),
        _row("nested", '"n": ' + "[" * DEEP + "]" * DEEP, "nested too deeply"),
        _bytes("unclosed.jsonl", b'{"a":' * DEEP, "nested too deeply"),
        _row("objects", '"n": ' + '{"a":' * 70 + "1" + "}" * 70, "nested"),
        _row("reserved", '"$time": "x"', "reserved"),
        _row("nulls", '"\\u0000": "\\u0000"'),
        _row("twice", '"id": "b"'),
        _bytes("list.jsonl", b"[1]", "not an object"),
        _bytes("no-text.jsonl", b'{"id": "a"}', "no text"),
        _bytes("odd-id.jsonl", b'{"id": {}, "text": "x"}', "the id"),
        _bytes("long-id.jsonl", b'{"id": "' + b"x" * 20_000 + b'", "text": "x"}', "20000 bytes"),
        _bytes("surrogate.jsonl", b'{"id": "a", "text": "\\ud800"}', "surrogate"),
        _bytes("line.jsonl", lambda: b'{"id": "' + b"x" * 17 * MB + b'"}', "bytes allowed"),
        _bytes("gzip.jsonl", _GZIP, "not UTF-8"),
        _bytes("cut.jsonl", b'{"id": "a", "text": "x', "not JSON"),
        _bytes("zeros.jsonl", b"\0" * MB, "not JSON"),
        _bytes("blank.jsonl", b"\n" * (MB // 4)),
    ]  # fmt: skip


def _tables() -> list[File]:
    return [
        _bytes("cell.csv", lambda: b"id,text\nb," + b"x" * 100 * MB, "characters allowed"),
        _bytes("quote.csv", lambda: b'id,text\nb,"' + (b"x" * 99 + b"\n") * 180_000,
               "close the quotes"),
        _bytes("header.csv", lambda: b"x," * MB, "no column"),
        _bytes("wide.csv", b"id,text," + b",".join(b"c%d" % n for n in range(100_000)) + b"\na,x",
               "cells"),
        _bytes("short.csv", b"id,text\na", "cells"),
        _bytes("empty.csv", b"", "is empty"),
        _bytes("utf16.csv", "id,text\na,x".encode("utf-16"), "UTF-8"),
        _bytes("gzip.csv", _GZIP, "not UTF-8"),
        _bytes("digits.csv", b"id,text,n\na,x," + b"7" * 5_000, "not finite"),
        _bytes("vectors.tsv", b"id\ttext\n" + b"a\tx\ty\n", "cells"),
        _bytes("marks.parquet", b"PAR1PAR1", "not a readable"),
        _bytes("footer.parquet", b"PAR1" + b"x" * 20 + struct.pack("<I", 2**31 - 1) + b"PAR1",
               "not a readable"),
        _bytes("empty.parquet", b"", "is empty"),
        _bytes("text.parquet", b"no table", "not a readable"),
    ]  # fmt: skip


def _pages() -> list[File]:
    return [
        # For each element, the parser walks up all that are open.
        _bytes("nested.html", b"<div>" * DEEP + b"x", "took longer", endless=True),
        _bytes("attributes.html", b"<p " + b" ".join(b"a%d=1" % n for n in range(5_000)) + b">x"),
        _bytes("entities.html", b"<p>x" + b"&amp;" * 500_000),
        _bytes("charset.html", b'<meta charset="zip">x'),
        _bytes("escape.html", b'<meta charset="unicode_escape">\\x41'),
        _bytes("script.html", b"<script>" + b"x" * MB, "no text"),
        _bytes("empty.html", b"", "is empty"),
        _bytes("gzip.html", _GZIP, "not utf-8"),
        _bytes("null.html", b"\0" * 1_000, "no text"),
    ]  # fmt: skip


def _papers() -> list[File]:
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << >> >>"
    zeros = zlib.compress(b"\0" * 200 * MB)
    form = (
        b"<< /Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /F 4 0 R >> >>"
        b" /Length 5 >>\nstream\n/F Do\nendstream"
    )
    drawn = page.replace(b"/Resources << >>", b"/Resources << /XObject << /F 4 0 R >> >>")
    kids = b"<< /Type /Pages /Kids [%s] /Count 1 >>"
    return [
        _bytes("junk.pdf", b"%PDF spoilt", "broken PDF"),
        _bytes("empty.pdf", b"", "is empty"),
        _bytes("pages-loop.pdf", pdf(kids % b"2 0 R", page), "broken PDF"),
        _bytes("object-loop.pdf", pdf(b"2 0 R", page), "broken PDF"),
        _bytes("bomb.pdf", pdf(kids % b"3 0 R", page, b"<< /Length %d /Filter /FlateDecode >>"
               b"\nstream\n%s\nendstream" % (len(zeros), zeros)), "no text"),
        _bytes("form-loop.pdf", pdf(kids % b"3 0 R", drawn, form), "no text"),
        _bytes("nested-lists.pdf", pdf(kids % b"3 0 R", page, b"[" * DEEP), "no text"),
        _bytes("table-loop.pdf", pdf(kids % b"3 0 R", page).replace(
            b"/Root", b"/Prev 9 /Root"), "no text"),
    ]  # fmt: skip


def pdf(pages: bytes, page: bytes, content: bytes = b"<< >>") -> bytes:
    """Returns a PDF file of four objects: its catalog, these pages, this page and this content."""
    written, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate((b"<< /Type /Catalog /Pages 2 0 R >>", pages, page, content), 1):
        offsets.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return written + (
        b"xref\n0 5\n0000000000 65535 f \n%strailer\n<< /Size 5 /Root 1 0 R >>\n" % table
        + b"startxref\n%d\n%%%%EOF" % len(written)
    )


def matrices() -> dict[str, bytes]:
    """Returns `.npy` files, by what is hostile about them, none of which is a matrix of vectors."""

    def npy(header: bytes, data: bytes = b"", version: int = 1) -> bytes:
        size = struct.pack("<H" if version == 1 else "<I", len(header))
        return b"\x93NUMPY" + bytes((version, 0)) + size + header + data

    def shaped(shape: object, kind: str = "<f4", data: bytes = b"") -> bytes:
        header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}\n"
        return npy(header.encode(), data)

    return {
        "empty": b"",
        "text": b"no matrix",
        "pickle": b"\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR.",
        "objects": shaped((1, 8), "|O", b"\0" * 64),
        "archive": b"PK\x05\x06" + b"\0" * 18,
        "header of signs": npy(b"-" * 9_000 + b"1"),
        "header of brackets": npy(b"(" * 9_000 + b")" * 900),
        "header of code": npy(b"__import__('os').system('touch pwned')"),
        "header of 60 KB": npy(b" " * 60_000),
        "header of 4 GiB": npy(b"x", version=2)[:8] + b"\xff" * 4,
        "unknown version": npy(b"{}", version=9),
        "cut": shaped((2, 8), data=b"\0" * 60),
        "8 TB": shaped((10**12, 2)),
        "2^63 rows": shaped((2**63, 8)),
        "2^124 numbers": shaped((2**62, 2**62)),
        "negative": shaped((-2, -4), data=b"\0" * 32),
        "rows without numbers": shaped((10**15, 0)),
        "rows of 100,000 numbers": shaped((1, 100_000), data=b"\0" * 400_000),
        "100 dimensions": shaped((1,) * 100, data=b"\0" * 4),
        "records": npy(b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 8)}\n"),
    }
