"""Pages, PDF, rich text and mail made to hurt; see `hostile_documents`."""

from __future__ import annotations

import base64
import random
import zlib

from tests.index_builder.readers.hostile_documents import OLE, Hostile
from tests.index_builder.readers.office_files import TEXT, mail


def _pdf(*objects: str | bytes, trailer: str = "") -> bytes:
    """Returns a PDF of these objects, numbered from 1, without their places in the file."""
    written = b"%PDF-1.7\n"
    for number, body in enumerate(objects, start=1):
        data = body.encode() if isinstance(body, str) else body
        written += f"{number} 0 obj\n".encode() + data + b"\nendobj\n"
    return written + f"trailer\n<< /Root 1 0 R {trailer} >>\n%%EOF\n".encode()


def _stream(data: bytes, more: str = "") -> bytes:
    return f"<< /Length {len(data)} {more} >>\nstream\n".encode() + data + b"\nendstream"


def _page_pdf(
    catalogue: str = "", page: str = "", content: bytes | None = None, *more: str | bytes
) -> bytes:
    drawn = f"BT /F1 12 Tf 72 720 Td ({TEXT}) Tj ET".encode()
    return _pdf(
        f"<< /Type /Catalog /Pages 2 0 R {catalogue} >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources "
        f"<< /Font << /F1 5 0 R >> >> {page} >>",
        content if content is not None else _stream(drawn),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        *more,
    )


def _nested_mail(depth: int) -> bytes:
    parts = "".join(
        f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(depth)
    )
    return f"Subject: Hello\nFrom: a@example.org\nMIME-Version: 1.0\n{parts}\n{TEXT}\n".encode()


HOSTILE_PAGES: dict[str, Hostile] = {
    # Mail.
    "deep.eml": Hostile("nested too deeply", lambda _: _nested_mail(1_000)),
    "noise.eml": Hostile("no mail", lambda _: random.Random(7).randbytes(50_000)),
    "charset.eml": Hostile("", lambda _: mail(f"{TEXT} \udcff\udcfe", "text/plain; charset=no")),
    "header.eml": Hostile("nested too deeply", lambda _: mail(TEXT, more=f"To: {'(' * 20_000}\n")),
    "remote.eml": Hostile(
        "",
        lambda trap: mail(
            f'<p>{TEXT}<img src="{trap.url}/pixel"><link rel="stylesheet" href="{trap.url}/css">',
            "text/html",
        ),
    ),
    # Rich text.
    "deep.rtf": Hostile("no text", lambda _: b"{\\rtf1 " + b"{" * 500_000),
    "binary.rtf": Hostile(
        "", lambda _: f"{{\\rtf1 {TEXT}\\par{{\\pict\\bin999999999 x}}}}".encode()
    ),
    "remote.rtf": Hostile(
        "",
        lambda trap: (
            f'{{\\rtf1 {{\\field{{\\*\\fldinst INCLUDEPICTURE "{trap.url}"}}}}{TEXT}'
            f"{{\\object\\objdata {base64.b16encode(OLE).decode()}}}}}".encode()
        ),
    ),
    # Pages.
    "deep.html": Hostile("longer than|^$", lambda _: ("<div>" * 200_000 + TEXT).encode()),
    "remote.html": Hostile(
        "",
        lambda trap: (
            f'<meta http-equiv="refresh" content="0;{trap.url}"><iframe src="{trap.url}">'
            f'</iframe><script src="{trap.url}"></script><p>{TEXT}</p>'.encode()
        ),
    ),
    "spans.html": Hostile(
        "",
        lambda _: (
            f'<table><tr><td colspan="999999999" rowspan="999999999">{TEXT}<td>b<tr><td>c'
            "</table>".encode()
        ),
    ),
    "bytes.html": Hostile("not utf-8", lambda _: b"<p>\xff\xfe\xfd\xfc" + TEXT.encode()),
    # PDF.
    "loop-pages.pdf": Hostile(
        "broken PDF|no text",
        lambda _: _pdf(
            "<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 999 >>"
        ),
    ),
    "loop-outline.pdf": Hostile(
        "",
        lambda _: _page_pdf(
            "/Outlines 6 0 R",
            "",
            None,
            "<< /First 7 0 R /Last 7 0 R /Count 1 >>",
            "<< /Title (A) /Parent 6 0 R /Next 7 0 R /First 7 0 R /Dest [3 0 R /Fit] >>",
        ),
    ),
    "loop-length.pdf": Hostile(
        "",
        lambda _: (
            _page_pdf()
            .replace(b"/Length 65", b"/Length 4 0 R")
            .replace(b"/Length 66", b"/Length 4 0 R")
        ),
    ),
    "loop-reference.pdf": Hostile("broken PDF|no text", lambda _: _pdf("2 0 R", "3 0 R", "1 0 R")),
    "loop-form.pdf": Hostile(
        "longer than",
        lambda _: _page_pdf(
            "",
            "/Resources << /Font << /F1 5 0 R >> /XObject << /X 6 0 R >> >>",
            _stream(f"/X Do BT /F1 12 Tf 72 720 Td ({TEXT}) Tj ET".encode()),
            _stream(
                b"/X Do /X Do",
                "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject "
                "<< /X 6 0 R >> >>",
            ),
        ).replace(b"/Resources << /Font << /F1 5 0 R >> >> /Resources", b"/Resources"),
    ),
    "bomb-stream.pdf": Hostile(
        "no text|memory|longer than|broken PDF",
        lambda _: _page_pdf(
            "",
            "",
            _stream(
                zlib.compress(zlib.compress(b" " * (200 << 20), 1), 9),
                "/Filter [/FlateDecode /FlateDecode]",
            ),
        ),
    ),
    "deep-arrays.pdf": Hostile(
        "broken PDF|no text|crashed", lambda _: _page_pdf("", "", b"[" * 1_000_000)
    ),
    "many-pages.pdf": Hostile(
        "broken PDF|pages; 20000 are allowed|no text",
        lambda _: _pdf(
            "<< /Type /Catalog /Pages 2 0 R >>",
            f"<< /Type /Pages /Kids [{'3 0 R ' * 100_000}] /Count 100000 >>",
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>",
        ),
    ),
    "actions.pdf": Hostile(
        "",
        lambda trap: _page_pdf(
            f"/OpenAction << /S /URI /URI ({trap.url}) >> /Names << /JavaScript << /Names [(a) "
            f"<< /S /JavaScript /JS (app.launchURL\\('{trap.url}'\\)) >>] >> >>",
            f"/AA << /O << /S /Launch /F ({trap.file}) >> >>",
        ),
    ),
    "truncated.pdf": Hostile("broken PDF|no text", lambda _: _page_pdf()[:150]),
    "password.pdf": Hostile(
        "encrypted with a password",
        lambda _: _pdf(
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [] /Count 0 >>",
            f"<< /Filter /Standard /V 1 /R 2 /P -4 /O <{'41' * 32}> /U <{'42' * 32}> >>",
            trailer="/Encrypt 3 0 R /ID [<00> <00>]",
        ),
    ),
}
