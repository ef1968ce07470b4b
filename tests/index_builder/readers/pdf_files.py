"""Writes small PDF files whose text is known."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

FONTS = {"F1": "Helvetica", "F2": "Helvetica-Bold", "F3": "Courier"}


class Drawn(NamedTuple):
    """Text at a place of a page, which is 612 wide and 792 high. rule: Draws a line instead."""

    left: float
    base: float
    text: str = ""
    size: float = 10.0
    font: str = "F1"
    rule: float = 0.0


def pdf(pages: Sequence[Sequence[str]], title: str = "") -> bytes:
    """Returns a PDF file.

    Args:
        pages: Lines of each page, in ASCII without brackets or backslashes.
        title: Of its properties.
    """
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, lines in enumerate(pages):
        drawn = " ".join(f"({line}) Tj 0 -14 Td" for line in lines)
        content = f"BT /F1 12 Tf 72 720 Td {drawn} ET" if lines else ""
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>",
            f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        ]
    objects.append(f"<< /Title ({title}) >>")
    return _file(objects, info=len(objects))


def drawn_pdf(
    pages: Sequence[Sequence[Drawn]], bookmarks: Sequence[tuple[str, int]] = (), title: str = ""
) -> bytes:
    """Returns a PDF file from what is drawn on its pages.

    Args:
        bookmarks: Titles and pages, from 0, of an outline of one level.
    """
    first = 4 + len(FONTS)
    kids = " ".join(f"{first + 2 * n} 0 R" for n in range(len(pages)))
    fonts = " ".join(f"/{name} {4 + n} 0 R" for n, name in enumerate(FONTS))
    outline = first + 2 * len(pages)
    last = outline + len(bookmarks)
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R /Outlines {outline} 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        f"<< /Title ({title}) >>",
        *(f"<< /Type /Font /Subtype /Type1 /BaseFont /{name} >>" for name in FONTS.values()),
    ]
    for number, page in enumerate(pages):
        content = "\n".join(
            f"{one.left} {one.base} m {one.rule} {one.base} l S"
            if one.rule
            else f"BT /{one.font} {one.size} Tf {one.left} {one.base} Td ({one.text}) Tj ET"
            for one in page
        )
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << {fonts} "
            f">> >> /Contents {first + 2 * number + 1} 0 R >>",
            f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        ]
    objects.append(f"<< /Type /Outlines /First {outline + 1} 0 R /Last {last} 0 R >>")
    for number, (text, page_number) in enumerate(bookmarks, start=outline + 1):
        next_ = f"/Next {number + 1} 0 R" if number < last else ""
        page_object = first + 2 * page_number
        objects.append(
            f"<< /Title ({text}) /Parent {outline} 0 R {next_} /Dest [{page_object} 0 R /Fit] >>"
        )
    return _file(objects, info=3)


def locked_pdf(password: str) -> bytes:
    """Returns a PDF file that needs a password; if empty, only its owner may print it."""
    padding = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")
    owner = bytes(range(32))
    user = (password.encode() + padding)[:32]
    limits = (-4).to_bytes(4, "little", signed=True)
    key = hashlib.md5(user + owner + limits + b"id").digest()[:5]
    check = _rc4(key, padding)
    content = b"BT /F1 12 Tf 72 720 Td (The Rhine) Tj ET"
    drawn = _rc4(hashlib.md5(key + bytes([4, 0, 0, 0, 0])).digest()[:10], content)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font "
        b"<< /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(drawn), drawn),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <%b> /U <%b> >>"
        % (owner.hex().encode(), check.hex().encode()),
    ]
    body = b"".join(b"%d 0 obj\n%b\nendobj\n" % pair for pair in enumerate(objects, start=1))
    return b"%PDF-1.4\n" + body + b"trailer\n<< /Root 1 0 R /Encrypt 6 0 R /ID [<6964> <6964>] >>\n"


def _rc4(key: bytes, data: bytes) -> bytes:
    state, at = list(range(256)), 0
    for n in range(256):
        at = (at + state[n] + key[n % len(key)]) % 256
        state[n], state[at] = state[at], state[n]
    result, one, two = bytearray(), 0, 0
    for byte in data:
        one = (one + 1) % 256
        two = (two + state[one]) % 256
        state[one], state[two] = state[two], state[one]
        result.append(byte ^ state[(state[one] + state[two]) % 256])
    return bytes(result)


def _file(objects: Sequence[str], info: int) -> bytes:
    written = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(written))
        written += f"{number} 0 obj\n{body}\nendobj\n".encode("ascii")
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    trailer = f"<< /Size {len(objects) + 1} /Root 1 0 R /Info {info} 0 R >>"
    return written + (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n{trailer}\n"
        f"startxref\n{len(written)}\n%%EOF\n"
    ).encode("ascii")
