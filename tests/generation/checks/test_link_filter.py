"""Tests that no address outside the evidence reaches a reader, however it is written."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings, strategies as st
from markdown_it import MarkdownIt

from generation.checks.link_filter import REMOVED_LINK, filter_links, find_addresses

EVIDENCE = "See https://docs.org/guide (or http://a.example/x?y=1#z). Mail help@docs.org."
ALLOWED = find_addresses([EVIDENCE])
KNOWN = {"https://docs.org/guide", "http://a.example/x?y=1#z", "help@docs.org"}

SAME = [
    ("See https://docs.org/guide.", "See https://docs.org/guide."),
    ("See HTTPS://Docs.ORG:443/guide!", "See https://docs.org/guide!"),
    ("See http://a.example:80/x?y=1#z now", "See http://a.example/x?y=1#z now"),
    ("See https://docs.org/%67uide", "See https://docs.org/guide"),
    ("See <https://docs.org/guide>.", "See https://docs.org/guide."),
    ("The [guide](https://docs.org/guide 'A title').", "The guide (https://docs.org/guide)."),
    ("[https://docs.org/guide](https://docs.org/guide)", "https://docs.org/guide"),
    ("见https://docs.org/guide。然后", "见https://docs.org/guide 。然后"),
    ("Write to help@docs.org.", "Write to help@docs.org."),
    ("[g]: https://docs.org/guide", "[g]: https://docs.org/guide"),
    ("No link: a/b, e.g. `subprocess.run`, x[0], List<String>, a <= b, C:\\x, key: value.", ""),
    ("Times 12:30, ratio 3:1, //, a//b, std::sort, {'a': 1}, `for x in y[1]:`", ""),
]
REMOVED_FORMS = [
    ("See http://evil.com/x.", f"See {REMOVED_LINK}."),
    ("See HTTP://EVIL.COM, now", f"See {REMOVED_LINK}, now"),
    ("[guide](http://evil.com)", "guide"),
    ("[guide](/logout)", "guide"),
    ("[](http://evil.com)", REMOVED_LINK),
    ("![chart](http://evil.com/p.png?q=secret)", "chart"),
    ("![](https://docs.org/guide)", "(image removed)"),
    ("![a][b]", "a"),
    ("<http://evil.com>", REMOVED_LINK),
    ("//evil.com/x", REMOVED_LINK),
    ("\\\\evil.com\\x", REMOVED_LINK),
    ("http:evil.com", REMOVED_LINK),
    ("http:\\\\evil.com", REMOVED_LINK),
    ("www.evil.com", REMOVED_LINK),
    ("javascript:alert(1)", REMOVED_LINK),
    ("[x](javascript:alert(1))", "x"),
    ("[x](JaVa\u200bScRiPt:alert(1))", "x"),
    ("[x](&#106;avascript:alert(1))", "x"),
    ("&#104;ttp://evil.com", REMOVED_LINK),
    ("&amp;#104; http&colon;//evil.com", f"&amp;#104; {REMOVED_LINK}"),
    ("data:text/html;base64,PHNjcmlwdD4=", REMOVED_LINK),
    ("mailto:thief@evil.com", REMOVED_LINK),
    ("thief@evil.com", REMOVED_LINK),
    ("ht\u200btp://ev\u00adil.com", REMOVED_LINK),
    ("https://docs.org@evil.com/guide", REMOVED_LINK),
    ("https://me@docs.org/guide", REMOVED_LINK),
    ("https://docs.org/guide@evil.com", REMOVED_LINK),
    ("https://docs.org.evil.com/guide", REMOVED_LINK),
    ("https://docs.org/guide?to=me", REMOVED_LINK),
    ("https://docs.org/guide/../x", REMOVED_LINK),
    ("https://doсs.org/guide", REMOVED_LINK),  # with a Cyrillic letter
    ("https://docs.org:8443/guide", REMOVED_LINK),
    ("https://docs.org:80/guide", REMOVED_LINK),
    ("http://a.example:79/x?y=1#z", REMOVED_LINK),
    ("http://a.example:443/x?y=1#z", REMOVED_LINK),
    ("http://[::1", REMOVED_LINK),
    ("http://evil。com", f"{REMOVED_LINK}。com"),
    ("[https://docs.org/guide](http://evil.com)", "https://docs.org/guide"),
    ("[![a](http://evil.com/i)](http://evil.com)", "a"),
    ("[a]: http://evil.com", f"[a] : {REMOVED_LINK}"),
    ("[a]: /x", "[a] : /x"),
    # Each of several.
    ("[a](http://evil.com) [b](/x)", "a b"),
    ("![a](/x) ![b](/y)", "a b"),
    ("https://docs.org/guide。http://evil.com", f"https://docs.org/guide 。{REMOVED_LINK}"),
    ("http://evil.com。http://evil.org", f"{REMOVED_LINK}。{REMOVED_LINK}"),
    ("click. me](javascript:x)", f"click. me] ({REMOVED_LINK})"),
    ("<img src=/x onerror=y>", "< img src=/x onerror=y>"),
    ("<script>fetch('/x')</script>", "< script>fetch('/x')< /script>"),
    ("<a href='http://evil.com'>x</a>", f"< a href='{REMOVED_LINK}'>x</a>"),
    ("<img src", "< img src"),
]


@pytest.mark.parametrize(("text", "shown"), SAME)
def test_addresses_in_the_evidence_are_kept(text: str, shown: str) -> None:
    assert filter_links(text, ALLOWED) == (shown or text, 0)


@pytest.mark.parametrize(("text", "shown"), REMOVED_FORMS)
def test_addresses_outside_the_evidence_are_removed(text: str, shown: str) -> None:
    found = filter_links(text, ALLOWED)
    assert found.text == shown
    assert found.removed >= 1 or "<" in text or text == "[a]: /x"
    assert followed(found.text) <= KNOWN


def test_removed_links_are_counted() -> None:
    text = "![a](b) [c](http://d.e) http://f.g https://docs.org/guide"
    assert filter_links(text, ALLOWED) == (f"a c {REMOVED_LINK} https://docs.org/guide", 3)
    assert filter_links("https://docs.org/guide", {}) == (REMOVED_LINK, 1)


class _Requests(HTMLParser):
    """Collects the addresses that a browser would fetch or follow on a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found |= {value or "" for name, value in attributes if name != "class"}
        if tag in ("script", "style", "img", "iframe", "base"):
            self.found.add(tag)

    def handle_data(self, data: str) -> None:
        bare = r"(?<![a-z0-9])(?:https?:|www\.|javascript:|[a-z]+://)[^\s<>\"`()。]+"
        self.found |= {
            found.rstrip("?!.,:;*_~'\"") for found in re.findall(bare, data, re.IGNORECASE)
        }


def followed(text: str) -> set[str]:
    """Returns the addresses on the page of a Markdown renderer that admits HTML."""
    page = _Requests()
    page.feed(MarkdownIt("commonmark", {"html": True}).render(text))
    page.close()
    return page.found


SIGNS = [
    *("http", "https", "javascript", "data", "www.", "docs.org", "evil.com", "/guide", "mailto"),
    *(":", "//", "/", "\\", "@", ".", "?a=b", "#c", "%2e", "%", "\u200b", "&#58;", "&colon;", "&#"),
    *(
        "[",
        "]",
        "(",
        ")",
        "![",
        "](",
        "]: ",
        "<",
        ">",
        "<img src=",
        "<a href=",
        "<script",
        "'",
        '"',
    ),
    *("`", "```", "\n", "\n\n", " ", "    ", "。", "text", "https://docs.org/guide", ",", "*", "="),
]
TEXTS = st.lists(st.one_of(st.sampled_from(SIGNS), st.text(max_size=3)), max_size=25).map("".join)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_nothing_that_a_browser_would_fetch_survives(text: str) -> None:
    found = filter_links(text, ALLOWED)
    assert followed(found.text) <= KNOWN
    assert filter_links(found.text, ALLOWED).text == found.text
