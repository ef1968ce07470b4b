"""Text of PDF files: pages in order, and a clear reason if there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from index_builder.readers import pdf as portable
from index_builder.readers.pdf import parse_pdf
from index_builder.readers.protocol import ParsedDocument, UnreadableFile
from tests.index_builder.readers.pdf_files import Drawn, drawn_pdf, locked_pdf, pdf

PAGES = [["The Rhine rises in the Alps.", "It is 1233 km long."], [], ["It ends in the sea."]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rivers.pdf"
    path.write_bytes(pdf(PAGES, "Rivers"))
    return path


def test_pages_come_in_order(path: Path) -> None:
    text = "The Rhine rises in the Alps. It is 1233 km long.\n\nIt ends in the sea."
    assert parse_pdf(path) == ParsedDocument("Rivers", text, 3)


def test_a_file_that_only_restricts_printing_is_read(path: Path) -> None:
    path.write_bytes(locked_pdf(""))
    assert parse_pdf(path).text.startswith("The Rhine")


def test_a_file_with_a_password_says_so(path: Path) -> None:
    path.write_bytes(locked_pdf("secret"))
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


# Helvetica at 10 points: lines of about 220 points.
PROSE = [
    "The river is measured at seven stations, each with",
    "a gauge that was read twice a day by a warden, and",
    "since the flood of that year by an instrument, too.",
    "Its numbers are sent to the office in the capital,",
    "where they are checked, printed and kept for ever.",
    "Nobody has found a better method for doing it yet.",
]


def _column(left: float, top: float, lines: list[str], size: float = 10.0) -> list[Drawn]:
    return [Drawn(left, top - 12 * at, line, size) for at, line in enumerate(lines)]


def _read(path: Path, *pages: list[Drawn], bookmarks: tuple[tuple[str, int], ...] = ()) -> str:
    path.write_bytes(drawn_pdf(pages, bookmarks, "A title"))
    return parse_pdf(path).text


def test_columns_are_read_one_after_another(path: Path) -> None:
    left, right = PROSE, [line.replace("e", "o") for line in PROSE]
    text = _read(path, _column(72, 700, left) + _column(330, 700, right))
    assert text == " ".join(left) + "\n\n" + " ".join(right)


def test_a_paragraph_continues_on_the_next_page_and_hyphens_at_ends_of_lines_go(
    path: Path,
) -> None:
    first = [*PROSE[:3], "Its numbers are sent to the capital, with instru-"]
    text = _read(path, _column(72, 700, first), _column(72, 700, ["ments of all kinds, by post."]))
    assert text.endswith("sent to the capital, with instruments of all kinds, by post.")
    assert "\n" not in text


def test_words_that_the_document_hyphenates_keep_their_hyphen(path: Path) -> None:
    lines = ["A well-known river has a gauge, and this is a well-", "known fact."]
    assert _read(path, _column(72, 700, lines)).endswith("this is a well-known fact.")


def test_headings_are_found_by_size_weight_and_outline(path: Path) -> None:
    page = [
        Drawn(72, 720, "1 Measuring", 16, "F2"),
        *_column(72, 690, PROSE),
        Drawn(72, 600, "1.1 Gauges", 12, "F2"),
        *_column(72, 580, PROSE),
        Drawn(72, 490, "In short", 10),
        *_column(72, 470, PROSE),
    ]
    prose = " ".join(PROSE)
    text = _read(path, page, bookmarks=(("In short", 0),))
    assert [line for line in text.split("\n") if line.startswith("#")] == [
        "# 1 Measuring",
        "## 1.1 Gauges",
        "# In short",
    ]
    assert text.count(prose) == 3


def test_headers_footers_and_page_numbers_are_removed(path: Path) -> None:
    pages = [
        [
            Drawn(72, 760, "Handbook of rivers"),
            *_column(72, 700, [f"Page {word} has this line of text."]),
            *_column(72, 600, [f"It has a second one, {word}."]),
            Drawn(300, 30, f"- {number} -"),
        ]
        for number, word in enumerate(["one", "two", "three", "four"], start=7)
    ]
    text = _read(path, *pages)
    assert "Handbook" not in text and "- 8" not in text and text.count("second") == 4


def test_contents_and_indexes_are_removed_but_prices_are_not(path: Path) -> None:
    dots = " . . . . . . . "
    contents = [f"{n} Chapter about something{dots}{n * 4}" for n in range(1, 9)]
    prices = [
        f"{name}{dots}{price}" for name, price in [("Tea", 2.5), ("Cake", 3.1), ("Milk", 1.2)]
    ]
    text = _read(
        path,
        [Drawn(72, 740, "Contents", 16, "F2"), *_column(72, 700, contents)],
        [Drawn(72, 740, "Prices", 16, "F2"), *_column(72, 700, prices)],
    )
    assert text == "# Prices\n\n- Tea: 2.5\n- Cake: 3.1\n- Milk: 1.2"


def test_lists_keep_their_numbers_and_nesting(path: Path) -> None:
    page = [
        Drawn(72, 700, "Do this:"),
        Drawn(80, 684, "1."),
        Drawn(100, 684, "Open the lid."),
        Drawn(80, 670, "2."),
        Drawn(100, 670, "Take out the filter."),
        Drawn(100, 656, "-"),
        Drawn(112, 656, "Mind the spring."),
        Drawn(80, 642, "3."),
        Drawn(100, 642, "Close it."),
    ]
    assert _read(path, page) == (
        "Do this:\n\n1. Open the lid.\n2. Take out the filter.\n   - Mind the spring.\n3. Close it."
    )


def test_code_is_verbatim(path: Path) -> None:
    lines = ["if ready:", "    start(7)", "", "stop()"]
    page = _column(72, 700, PROSE) + [
        Drawn(90, 610 - 12 * at, line, 10, "F3") for at, line in enumerate(lines) if line
    ]
    assert _read(path, page).endswith("\n\n```\n" + "\n".join(lines) + "\n```")


def test_rows_of_a_table_are_lines(path: Path) -> None:
    rows = [("Stop", "Weekdays", "Sunday"), ("Market", "06:15", ""), ("Airport", "06:40", "08:40")]
    page = [
        Drawn(72 + 120 * column, 700 - 14 * at, text)
        for at, row in enumerate(rows)
        for column, text in enumerate(row)
        if text
    ]
    assert _read(path, page) == "Stop Weekdays Sunday\nMarket 06:15\nAirport 06:40 08:40"
