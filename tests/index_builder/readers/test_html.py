"""The text of HTML pages as their readers see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from index_builder.readers import html
from index_builder.readers.html import parse_page
from index_builder.readers.protocol import ParsedDocument, UnreadableFile

PAGE = """<!doctype html><html><head><meta charset="utf-8"><title>
  Rivers &amp; lakes </title><style>p { color: red }</style></head><body>
<header><nav><ul><li>Home<li>About</ul></nav></header>
<main><h1>Rivers</h1>
<p>The <b>Rhine</b> rises in the
   Alps<sup>1</sup>.</p><p hidden>Secret.</p><script>alert("no")</script>
<ul><li>Basel<li>Cologne</ul>
<table><tr><th>River</th><th>km</th></tr><tr><td>Rhine</td><td>1233</td></tr></table>
<pre>a  b
  c</pre>Last<br>line.</main>
<aside>Related</aside><footer>Imprint</footer></body></html>"""
TEXT = """The Rhine rises in the Alps1.

- Basel
- Cologne

- River: Rhine; km: 1233

```
a  b
  c
```

Last
line."""


def _parse(folder: Path, content: str | bytes) -> ParsedDocument:
    path = folder / "page.html"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return parse_page(path)


def test_a_page_is_its_main_text_in_order(tmp_path: Path) -> None:
    assert _parse(tmp_path, PAGE) == ParsedDocument("Rivers & lakes", TEXT)


def test_without_main_it_is_the_body_and_without_title_the_first_heading(tmp_path: Path) -> None:
    page = '<nav>Home</nav><h1>One</h1><div role="navigation">Up</div><p>Two.<div>Three.</div>'
    assert _parse(tmp_path, page) == ParsedDocument("One", "Two.\n\nThree.")
    assert _parse(tmp_path, "<p>Only text.").title == ""


def test_words_are_separated_only_as_on_the_page(tmp_path: Path) -> None:
    page = "<p>un<i>believ</i>able <b> two </b>\n<span>three</span>,<a>four</a></p>"
    assert _parse(tmp_path, page).text == "unbelievable two three,four"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Größe".encode(), "Größe"),
        ("\ufeffGröße".encode(), "Größe"),
        ("Größe".encode("utf-16"), "Größe"),
        (b'<meta charset="iso-8859-1">' + "„Größe“ €".encode("cp1252"), "„Größe“ €"),
        (
            b"<meta http-equiv=x content='text/html; charset=koi8-r'>" + "Волга".encode("koi8-r"),
            "Волга",
        ),
        (b'<meta charset="utf-16">' + "Größe".encode(), "Größe"),
        (b'<meta charset="zlib">' + "Größe".encode(), "Größe"),
        (b'<meta charset="no-such">' + "Größe".encode(), "Größe"),
    ],
)
def test_the_encoding_is_the_one_declared(tmp_path: Path, content: bytes, text: str) -> None:
    assert _parse(tmp_path, content).text == text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"caf\xe9", r"not utf-8: byte 4 of the file; .*<meta charset="),
        (b"<script>render()</script><nav>Home</nav>", "no text outside scripts and navigation"),
        (b"", "no text outside"),
    ],
)
def test_pages_without_text_give_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableFile, match=reason):
        _parse(tmp_path, content)


def test_a_page_that_is_too_large_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "MAX_BYTES", 10)
    with pytest.raises(UnreadableFile, match="has 11 bytes; 10 are allowed"):
        _parse(tmp_path, b"<p>12345678")


def test_no_nesting_is_too_deep(tmp_path: Path) -> None:
    assert _parse(tmp_path, "<div>" * 5_000 + "deep").text == "deep"
