"""Writes small files of office formats, in which TEXT stands."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

TEXT = "Harmless text of seven words stands here."
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
OPEN_DOCUMENT = "urn:oasis:names:tc:opendocument:xmlns"


def zipped(members: Mapping[str, str | bytes], links: Mapping[str, str] | None = None) -> bytes:
    """Returns an archive. links: Symbolic links and their targets."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        for name, target in (links or {}).items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, target)
    return buffer.getvalue()


def relations(targets: Mapping[str, tuple[str, str]], external: bool = False) -> str:
    """Returns what a part refers to: kind and target by id."""
    mode = ' TargetMode="External"' if external else ""
    rows = "".join(
        f'<Relationship Id="{name}" Type="{OFFICE}/{kind}" Target="{target}"{mode}/>'
        for name, (kind, target) in targets.items()
    )
    return f'<Relationships xmlns="{PACKAGE}">{rows}</Relationships>'


def word(body: str = "", head: str = "") -> str:
    """Returns the main part of a Word document, with TEXT before its body."""
    text = f"<w:p><w:r><w:t>{TEXT}</w:t></w:r></w:p>"
    return (
        f'<?xml version="1.0"?>{head}<w:document xmlns:w="{WORD}" xmlns:r="{OFFICE}" xmlns:a="http://'
        f'schemas.openxmlformats.org/drawingml/2006/main"><w:body>{text}{body}</w:body>'
        "</w:document>"
    )


def docx(document: str | bytes, **parts: str | bytes) -> dict[str, str | bytes]:
    """Returns the parts of a Word document; in names, _ is a slash and __ a dot."""
    names = {name.replace("__", ".").replace("_", "/"): data for name, data in parts.items()}
    return {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/'
        'content-types"><Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": relations({"r1": ("officeDocument", "word/document.xml")}),
        "word/document.xml": document,
        **names,
    }


DOCX_RELS = "word/_rels/document.xml.rels"


def xlsx(rows: str, shared: str = "", after: str = "", dimension: str = "A1", **more: str) -> bytes:
    """Returns an Excel file of one sheet."""
    sheet = (
        f'<worksheet xmlns="{SHEET}"><dimension ref="{dimension}"/><sheetData>{rows}</sheetData>'
        f"{after}</worksheet>"
    )
    return zipped(
        {
            "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/'
            'content-types"><Override PartName="/xl/workbook.xml" ContentType="application/vnd.'
            'openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override PartName="/xl/'
            'sharedStrings.xml" ContentType="application/vnd.openxmlformats-officedocument.'
            'spreadsheetml.sharedStrings+xml"/></Types>',
            "_rels/.rels": relations({"r1": ("officeDocument", "xl/workbook.xml")}),
            "xl/workbook.xml": f'<workbook xmlns="{SHEET}" xmlns:r="{OFFICE}"><sheets>'
            '<sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": relations(
                {
                    "r1": ("worksheet", "worksheets/sheet1.xml"),
                    "r2": ("sharedStrings", "sharedStrings.xml"),
                }
            ),
            "xl/worksheets/sheet1.xml": sheet,
            "xl/sharedStrings.xml": shared or f'<sst xmlns="{SHEET}"><si><t>{TEXT}</t></si></sst>',
            **more,
        }
    )


def cells(*written: str, row: int = 1) -> str:
    """Returns a row."""
    return f'<row r="{row}">{"".join(written)}</row>'


def text_cell(place: str, number: int = 0) -> str:
    """Returns a cell with a shared string."""
    return f'<c r="{place}" t="s"><v>{number}</v></c>'


def pptx(slides: int = 1, notes: str = "", head: str = "", shapes: str = "") -> bytes:
    """Returns slides, all of them the same."""
    a = "http://schemas.openxmlformats.org/drawingml/2006/main"
    p = "http://schemas.openxmlformats.org/presentationml/2006/main"
    ids = '<p:sldId id="256" r:id="r1"/>' * slides
    return zipped(
        {
            "ppt/presentation.xml": f'<p:presentation xmlns:p="{p}" xmlns:r="{OFFICE}">'
            f"<p:sldIdLst>{ids}</p:sldIdLst></p:presentation>",
            "ppt/_rels/presentation.xml.rels": relations({"r1": ("slide", "slides/slide1.xml")}),
            "ppt/slides/slide1.xml": f'{head}<p:sld xmlns:p="{p}" xmlns:a="{a}"><p:cSld><p:spTree>'
            f"{shapes}<p:sp><p:txBody><a:p><a:r><a:t>{TEXT}</a:t></a:r></a:p></p:txBody></p:sp>"
            "</p:spTree></p:cSld></p:sld>",
            "ppt/slides/_rels/slide1.xml.rels": relations(
                {"r1": ("notesSlide", notes or "no.xml")}
            ),
        }
    )


def odf(body: str, head: str = "", manifest: str = "") -> bytes:
    """Returns an OpenDocument file."""
    spaces = " ".join(
        f'xmlns:{name}="{OPEN_DOCUMENT}:{name}:1.0"' for name in ("office", "text", "table")
    )
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "META-INF/manifest.xml": f"<manifest>{manifest}</manifest>",
            "content.xml": f"{head}<office:document-content {spaces}><office:body>{body}"
            "</office:body></office:document-content>",
        }
    )


def epub(spine: str, files: str, head: str = "", **more: str) -> bytes:
    """Returns a book; in names, __ is a slash."""
    return zipped(
        {
            "META-INF/container.xml": '<container><rootfiles><rootfile full-path="b.opf"/>'
            "</rootfiles></container>",
            "b.opf": f'{head}<package xmlns="http://www.idpf.org/2007/opf"><manifest>{files}'
            f"</manifest><spine>{spine}</spine></package>",
            "a.xhtml": f"<html><body><p>{TEXT}</p></body></html>",
            **{name.replace("__", "/"): data for name, data in more.items()},
        }
    )


def mail(body: str, kind: str = "text/plain; charset=utf-8", more: str = "") -> bytes:
    """Returns a mail."""
    headers = (
        f"Subject: Hello\nFrom: a@example.org\n{more}MIME-Version: 1.0\nContent-Type: {kind}\n"
    )
    return f"{headers}\n{body}\n".encode("utf-8", "surrogateescape")
