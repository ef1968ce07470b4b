"""Reads office formats, e-books and mail as structured text: each becomes HTML first."""

from __future__ import annotations

import errno
import posixpath
import re
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from index_builder.documents.bad_rows import reason_of
from index_builder.readers.html import parse_markup
from index_builder.readers.office.archives import Archive
from index_builder.readers.protocol import ParsedDocument, UnreadableFile, check_size

MAX_BYTES = 256 << 20
_MAX_REASON = 120  # Characters of a library's error.
_STYLES = "\n".join(
    [
        "p[style-name='Title'] => h1:fresh",
        *(f"p[style-name='{kind} {n}'] => !" for kind in ("toc", "index") for n in range(1, 10)),
        "p[style-name='TOC Heading'] => !",
        "p[style-name='Definition Term'] => dl > dt:fresh",
        "p[style-name='Definition'] => dl > dd:fresh",
        *(
            f"p[style-name='{name}'] => pre:separator('\\n')"
            for name in ("Code", "Source Code", "HTML Preformatted", "Preformatted Text")
        ),
    ]
)
# In XHTML, such an element ends where it begins.
_EMPTY_TAG = re.compile(r"<(?:script|style|title|iframe|textarea)\b[^<>]{0,1000}/>", re.IGNORECASE)
_RTF_TITLE = re.compile(r"\{\\title ([^{}\\]{1,300})\}")
_GENERATED_TITLE = re.compile(r"(?i)|untitled|presentation\d*|powerpoint presentation|document\d*")
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_OPF = "{http://www.idpf.org/2007/opf}"
_COMPATIBLE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"


def parse_office(path: Path) -> ParsedDocument:
    """Reads a file whose suffix is one of SUFFIXES.

    The title is that of the file's properties, otherwise the first heading, otherwise empty.
    Raises: UnreadableFile: the file is encrypted, damaged, too large or without text. OSError.
    """
    check_size(path, MAX_BYTES)
    suffix = path.suffix.lower()
    try:
        document = SUFFIXES[suffix](path)
    except (UnreadableFile, MemoryError):
        raise
    except RecursionError as error:
        raise UnreadableFile("its parts are nested too deeply; save it again") from error
    except Exception as error:
        # Libraries raise almost any exception on damaged files, also OSError.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = f"{type(error).__name__}: {reason_of(error, _MAX_REASON)}"
        raise UnreadableFile(f"damaged {suffix[1:]} ({reason}); save or export it again") from error
    if not document.text.strip():
        raise UnreadableFile("no text in it; leave it out, or save it again")
    return document


def _parsed(title: str, body: str, other_title: str = "") -> ParsedDocument:
    """Returns HTML as a document; programs fill in titles such as Document1."""
    title = other_title if _GENERATED_TITLE.fullmatch(title.strip()) else title
    head = f"<title>{escape(title)}</title>" if title.strip() else ""
    return parse_markup(f"<html><head>{head}</head><body>{body}</body></html>")


def _property(archive: Archive, part: str) -> str:
    """Returns the title in a part of properties."""
    root = archive.xml(part)
    title = root.find(f".//{_DC}title") if root is not None else None
    return (title.text or "") if title is not None else ""


def _docx(path: Path) -> ParsedDocument:
    import mammoth

    title = _property(Archive(path), "docProps/core.xml")
    with path.open("rb") as stream:
        converted = mammoth.convert_to_html(
            stream,
            style_map=_STYLES,
            # Without this, pictures would become part of the text.
            convert_image=mammoth.images.img_element(lambda image: {}),
            external_file_access=False,
        )
    return _parsed(title, converted.value)


def _pptx(path: Path) -> ParsedDocument:
    archive = Archive(path)
    main = "ppt/presentation.xml"
    root = archive.xml(main)
    if root is None:
        raise UnreadableFile("no slides in it; save it again")
    related, body, first = archive.related(main), "", ""
    entries = (related.get(one.get(f"{_R}id", ""), ("", "")) for one in root.iter(f"{_P}sldId"))
    for number, (_, name) in enumerate(dict.fromkeys(entries), start=1):
        slide = archive.xml(name)
        if slide is None:
            continue
        title, blocks = _slide(slide)
        first = first or title
        body += f"<h2>Slide {number}{': ' if title else ''}{title}</h2>{blocks}"
        for kind, part in archive.related(name).values():
            notes = archive.xml(part) if kind == "notesSlide" else None
            if notes is not None and (said := _slide(notes)[1]):
                body += f"<p>Notes: {re.sub('</?(?:p|ul|li)>', ' ', said)}</p>"
    return _parsed(_property(archive, "docProps/core.xml"), body, unescape(first))


def _slide(slide: Element) -> tuple[str, str]:
    """Returns the title and the other blocks of a slide, in HTML."""
    for parent in list(slide.iter()):
        for child in parent.findall(f"{_COMPATIBLE}Fallback"):
            parent.remove(child)
    title, blocks = "", ""
    for node in slide.iter():
        if node.tag == f"{_A}tbl":
            blocks += _slide_table(node)
        if node.tag == f"{_P}sp" and (text := node.find(f"{_P}txBody")) is not None:
            place = node.find(f"{_P}nvSpPr/{_P}nvPr/{_P}ph")
            kind = None if place is None else place.get("type", "body")
            if kind in ("title", "ctrTitle"):
                title = title or " ".join(_paragraph(one) for one in text.iter(f"{_A}p")).strip()
            elif kind not in ("dt", "ftr", "hdr", "sldNum", "sldImg"):
                blocks += _outline(text, bulleted=kind in ("body", "obj"))
    return title, blocks


def _slide_table(table: Element) -> str:
    properties = table.find(f"{_A}tblPr")
    tag = "th" if properties is not None and properties.get("firstRow") == "1" else "td"
    html = ""
    for row in table.iter(f"{_A}tr"):
        html += "<tr>"
        for cell in row.iter(f"{_A}tc"):
            if "1" not in (cell.get("hMerge"), cell.get("vMerge")):
                columns, rows = int(cell.get("gridSpan", 1)), int(cell.get("rowSpan", 1))
                text = "<br>".join(_paragraph(one) for one in cell.iter(f"{_A}p"))
                html += f'<{tag} colspan="{columns}" rowspan="{rows}">{text}</{tag}>'
        tag = "td"
    return f"<table>{html}</table>"


def _paragraph(paragraph: Element) -> str:
    return "".join(
        "<br>" if node.tag == f"{_A}br" else escape(node.text or "")
        for node in paragraph.iter()
        if node.tag in (f"{_A}t", f"{_A}br")
    )


def _outline(body: Element, bulleted: bool) -> str:
    """Returns the paragraphs of a shape, as nested lists by their level."""
    written, depth = "", 0
    paragraphs = [one for one in body.iter(f"{_A}p") if _paragraph(one).strip()]
    for one in paragraphs:
        properties = one.find(f"{_A}pPr")
        level = min(8, int(properties.get("lvl", 0))) if properties is not None else 0
        is_item = level > 0 or (bulleted and len(paragraphs) > 1)
        if properties is not None:
            is_item |= properties.find(f"{_A}buChar") is not None
            is_item &= properties.find(f"{_A}buNone") is None
        wanted = level + 1 if is_item else 0
        written += "</ul>" * (depth - wanted) + "<ul>" * (wanted - depth)
        depth = wanted
        written += f"<li>{_paragraph(one)}" if is_item else f"<p>{_paragraph(one)}</p>"
    return written + "</ul>" * depth


def _epub(path: Path) -> ParsedDocument:
    archive = Archive(path, declarations=True)
    container = archive.xml("META-INF/container.xml")
    root = container.find(".//{*}rootfile") if container is not None else None
    name = root.get("full-path", "") if root is not None else ""
    package = archive.xml(name)
    if package is None:
        raise UnreadableFile("no book in it; save or download it again")
    locked = archive.read("META-INF/encryption.xml").decode("utf-8", "replace")
    files = {item.get("id"): item for item in package.iter(f"{_OPF}item")}
    body = ""
    for reference in dict.fromkeys(one.get("idref") for one in package.iter(f"{_OPF}itemref")):
        item = files.get(reference)
        if item is None or "nav" in item.get("properties", "").split():
            continue
        href = unquote(item.get("href", ""))
        part = posixpath.normpath(posixpath.join(posixpath.dirname(name), href))
        if f'URI="{part}"' in locked:
            raise UnreadableFile("protected against copying (DRM); export it without protection")
        markup = archive.read(part).decode("utf-8-sig", "replace")
        body += f"<section>{_EMPTY_TAG.sub('', markup)}</section>"
    title = package.find(f".//{_DC}title")
    return _parsed(title.text or "" if title is not None else "", body)


def _rtf(path: Path) -> ParsedDocument:
    from striprtf import striprtf

    to_text: Callable[..., str] = striprtf.rtf_to_text

    source = path.read_bytes().decode("latin-1")
    if not source.lstrip().startswith("{\\rtf"):
        raise UnreadableFile("no .rtf file; save or download it again")
    found, body, table = _RTF_TITLE.search(source), "", False
    for line in to_text(source, errors="replace").split("\n"):
        if line.endswith("|") != table:
            body += "</table>" if table else "<table>"
            table = not table
        text = escape(line.strip())
        if table:
            cells = "".join(f"<td>{cell}</td>" for cell in text.rstrip("|").split("|"))
            body += f"<tr>{cells}</tr>"
        elif text:
            body += f"<p>{text}</p>"
    return _parsed(found[1] if found else "", body)


def _odt(path: Path) -> ParsedDocument:
    from index_builder.readers.office.opendocument import opendocument_markup

    archive = Archive(path)
    return _parsed(_property(archive, "meta.xml"), opendocument_markup(archive))


def _xlsx(path: Path) -> ParsedDocument:
    from index_builder.readers.office.sheets import workbook_text

    archive = Archive(path)
    title = _property(archive, "docProps/core.xml")
    return ParsedDocument(title, workbook_text(path, archive))


def _eml(path: Path) -> ParsedDocument:
    from index_builder.readers.office.mail import mail_markup

    return _parsed(*mail_markup(path.read_bytes()))


SUFFIXES: dict[str, Callable[[Path], ParsedDocument]] = {
    ".docx": _docx,
    ".pptx": _pptx,
    ".xlsx": _xlsx,
    ".odt": _odt,
    ".epub": _epub,
    ".eml": _eml,
    ".rtf": _rtf,
}
