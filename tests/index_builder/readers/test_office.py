"""Office formats, books and mail as structured text."""

from __future__ import annotations

import io
from datetime import date
from email.message import EmailMessage
from pathlib import Path

import pytest
from openpyxl import Workbook
from openpyxl.styles import Font

from index_builder.readers.office.documents import SUFFIXES, parse_office
from index_builder.readers.protocol import ParsedDocument, UnreadableFile
from tests.index_builder.readers.office_files import (
    TEXT,
    docx,
    epub,
    mail,
    odf,
    pptx,
    word,
    zipped,
)


def _read(folder: Path, suffix: str, data: bytes) -> ParsedDocument:
    path = folder / f"file.{suffix}"
    path.write_bytes(data)
    return parse_office(path)


def _styled(style: str, text: str) -> str:
    return (
        f'<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t xml:space="preserve">{text}'
        "</w:t></w:r></w:p>"
    )


def _styles(*names: str) -> str:
    rows = "".join(
        f'<w:style w:type="paragraph" w:styleId="{name.replace(" ", "")}"><w:name w:val="{name}"/>'
        "</w:style>"
        for name in names
    )
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    return f'<w:styles xmlns:w="{space}">{rows}</w:styles>'


def test_a_word_document_has_headings_code_and_tables_but_no_contents(tmp_path: Path) -> None:
    def row(*cells: str) -> str:
        written = (f"<w:tc><w:p><w:r><w:t>{cell}</w:t></w:r></w:p></w:tc>" for cell in cells)
        return f"<w:tr>{''.join(written)}</w:tr>"

    header = row("Grade", "Days").replace("<w:tr>", "<w:tr><w:trPr><w:tblHeader/></w:trPr>")
    body = (
        _styled("toc1", "Leave 3")
        + _styled("heading1", "Leave")
        + f"<w:tbl>{header}{row('A', '28')}{row('B', '30')}</w:tbl>"
        + _styled("SourceCode", "run:")
        + _styled("SourceCode", "  stop")
        + "<w:p><w:del><w:r><w:delText>Gone.</w:delText></w:r></w:del></w:p>"
    )
    parts = docx(word(body), word_styles__xml=_styles("toc 1", "heading 1", "Source Code"))
    core = (
        '<c:coreProperties xmlns:c="x" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>'
        "Handbook</dc:title></c:coreProperties>"
    )
    assert _read(tmp_path, "docx", zipped({**parts, "docProps/core.xml": core})) == ParsedDocument(
        "Handbook",
        f"{TEXT}\n\n# Leave\n\n- Grade: A; Days: 28\n- Grade: B; Days: 30\n\n"
        "```\nrun:\n  stop\n```",
    )


def _workbook(rows: list[list[object]], **formats: str) -> Workbook:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Prices"
    for row in rows:
        sheet.append(row)
    for place, form in formats.items():
        sheet[place].number_format = form
    return book


def _saved(book: Workbook) -> bytes:
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def test_each_row_of_a_sheet_has_its_headers(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        ["Price list 2024"],
        [],
        ["Item", "Price", "Since", "Share"],
        ["Tea", 2.5, date(2024, 1, 5), 0.25],
        ["Cake", 3, None, 0.5],
        [],
        ["City", "Offices"],
        ["Rome", 3],
    ]
    formats = {"B4": '0.00 "€"', "B5": '0.00 "€"', "D4": "0%", "D5": "0%"}
    book = _workbook(rows, **formats)
    book.create_sheet("Secret").sheet_state = "hidden"
    other = book.create_sheet("Form")
    for pair in (["Name", "John"], ["City", "Rome"]):
        other.append(pair)
    assert _read(tmp_path, "xlsx", _saved(book)).text == (
        "## Sheet: Prices\n\nPrice list 2024\n\n"
        "- Item: Tea; Price: 2.50 €; Since: 2024-01-05; Share: 25 %\n"
        "- Item: Cake; Price: 3.00 €; Share: 50 %\n\n"
        "- City: Rome; Offices: 3\n\n"
        "## Sheet: Form\n\n- Name: John\n- City: Rome"
    )


def test_merged_cells_count_for_all_their_rows_and_columns(tmp_path: Path) -> None:
    book = _workbook(
        [
            ["Branch", "2023", None, "2024", None],
            [None, "open", "close", "open", "close"],
            ["North", 8, 18, 9, 19],
            [None, 7, 17, 9, 19],
        ]
    )
    sheet = book.active
    assert sheet is not None
    for place in ("A1:A2", "B1:C1", "D1:E1", "A3:A4"):
        sheet.merge_cells(place)
    assert _read(tmp_path, "xlsx", _saved(book)).text == (
        "## Sheet: Prices\n\n"
        "- Branch: North; 2023 open: 8; 2023 close: 18; 2024 open: 9; 2024 close: 19\n"
        "- Branch: North; 2023 open: 7; 2023 close: 17; 2024 open: 9; 2024 close: 19"
    )


def test_a_bold_row_above_text_is_a_header(tmp_path: Path) -> None:
    book = _workbook([["Name", "Role"], ["Ada", "Chair"]])
    sheet = book.active
    assert sheet is not None
    for place in ("A1", "B1"):
        sheet[place].font = Font(bold=True)
    assert _read(tmp_path, "xlsx", _saved(book)).text.endswith("- Name: Ada; Role: Chair")


def test_a_formula_without_a_value_is_empty(tmp_path: Path) -> None:
    book = _workbook([["Sum", "Of", "Two"], ["=1+1", 1, 1]])
    assert _read(tmp_path, "xlsx", _saved(book)).text.endswith("- Of: 1; Two: 1")


def test_slides_have_numbers_titles_lists_tables_and_notes(tmp_path: Path) -> None:
    def shape(kind: str, *paragraphs: str) -> str:
        return (
            f'<p:sp><p:nvSpPr><p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr><p:txBody>'
            f"{''.join(paragraphs)}</p:txBody></p:sp>"
        )

    def line(text: str, level: int = 0) -> str:
        return f'<a:p><a:pPr lvl="{level}"/><a:r><a:t>{text}</a:t></a:r></a:p>'

    table = "".join(
        f"<a:tr>{''.join(f'<a:tc><a:txBody>{line(cell)}</a:txBody></a:tc>' for cell in row)}</a:tr>"
        for row in (("City", "Offices"), ("Rome", "3"))
    )
    shapes = (
        shape("title", line("Goals"))
        + shape("body", line("Grow"), line("by 5 %", 1), line("Hire"))
        + f'<p:graphicFrame><a:tbl><a:tblPr firstRow="1"/>{table}</a:tbl></p:graphicFrame>'
        + shape("sldNum", line("7"))
    )
    assert _read(tmp_path, "pptx", pptx(notes="slide1.xml", shapes=shapes)) == ParsedDocument(
        "Goals",
        "## Slide 1: Goals\n\n- Grow\n  - by 5 %\n- Hire\n\n- City: Rome; Offices: 3\n\n"
        f"{TEXT}\n\nNotes: Grow by 5 % Hire\n\n- City: Rome; Offices: 3\n\n{TEXT}",
    )


def test_an_open_document_text_has_its_structure(tmp_path: Path) -> None:
    body = (
        "<office:text><text:table-of-content><text:p>Leave 1</text:p></text:table-of-content>"
        '<text:h text:outline-level="2">Leave</text:h><text:p>Two<text:s text:c="1"/>weeks'
        "<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>Or three."
        "</text:p></text:note-body></text:note> a year.</text:p>"
        "<text:list><text:list-item><text:p>red</text:p></text:list-item><text:list-item><text:p>"
        "blue</text:p></text:list-item></text:list></office:text>"
    )
    text = "## Leave\n\nTwo weeks (Or three.) a year.\n\n- red\n- blue"
    assert _read(tmp_path, "odt", odf(body)).text == text


def test_chapters_of_a_book_come_in_order_without_navigation(tmp_path: Path) -> None:
    def item(name: str, more: str = "") -> str:
        return f'<item id="{name}" href="{name}.xhtml" {more}/>'

    page = "<?xml version='1.0'?><!DOCTYPE html><html><head><title/></head><body>{}</body></html>"
    data = epub(
        '<itemref idref="n"/><itemref idref="b"/><itemref idref="a"/>',
        '<dc:title xmlns:dc="http://purl.org/dc/elements/1.1/">A book</dc:title>'
        + item("a")
        + item("b")
        + item("n", 'properties="nav"'),
        **{"b.xhtml": page.format("<h1>One</h1><p>It began."), "n.xhtml": page.format("Contents")},
    )
    assert _read(tmp_path, "epub", data).text == f"# One\n\nIt began.\n\n{TEXT}"


def test_mail_has_its_headers_text_and_names_of_attachments(tmp_path: Path) -> None:
    message = EmailMessage()
    message["Subject"] = "Trip to Rome"
    message["From"] = "Ada <ada@example.org>"
    message["Date"] = "Mon, 3 Jun 2024 10:00:00 +0200"
    message.set_content(
        "Hi Bob,\n\nthe train leaves at 9:40 from platform seven, so please be there at nine\n"
        "or a little later.\n\n> When do we leave?\n"
    )
    message.add_attachment(b"x", maintype="application", subtype="pdf", filename="tickets.pdf")
    assert _read(tmp_path, "eml", bytes(message)) == ParsedDocument(
        "Trip to Rome",
        "- From: Ada <ada@example.org>\n- Date: Mon, 03 Jun 2024 10:00:00 +0200\n\nHi Bob,\n\n"
        "the train leaves at 9:40 from platform seven, so please be there at nine or a little "
        "later.\n\nWhen do we leave?\n\nAttachments:\n\n- tickets.pdf",
    )


def test_mail_in_html_keeps_its_structure(tmp_path: Path) -> None:
    data = mail("<html><body><p>Rich <b>text</b>.</p><ul><li>one</ul></body></html>", "text/html")
    assert _read(tmp_path, "eml", data).text.endswith("Rich text.\n\n- one")


def test_rich_text_has_paragraphs_and_tables(tmp_path: Path) -> None:
    data = (
        rb"{\rtf1\ansi{\info{\title Garden rules}}\pard Caf\'e9 opens.\par "
        rb"\trowd \intbl Monday\cell 8:00\cell\row \trowd \intbl Sunday\cell never\cell\row "
        rb"\pard The end.\par}"
    )
    assert _read(tmp_path, "rtf", data) == ParsedDocument(
        "Garden rules", "Café opens.\n\n- Monday: 8:00\n- Sunday: never\n\nThe end."
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_file_gives_a_reason_with_a_remedy(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(UnreadableFile, match="save"):
        _read(tmp_path, suffix[1:], b"\x00\x01 no such file")
