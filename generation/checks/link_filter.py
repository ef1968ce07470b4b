"""Removes from an answer all links that do not occur in its evidence.

Text in the evidence can make a model write harmful links, for example a link that sends the
conversation to a third party, or one that imitates another site. An address is therefore kept only
if the evidence contains exactly the same address. Images and HTML are never kept. A Markdown link
is shown as its text followed by its address.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from generation.checks.hidden_text import strip_hidden_text

REMOVED_LINK = "(link removed)"

# An address ends before these characters; trailing punctuation is not part of it.
_STOP = r"\s<>\"`"
_SIGN = rf"[^{_STOP}]"
_WIDE_STOP = re.compile("[，。；：！？、（）「」『』【】《》]")
_TRAILING = ".,;:!?'\")]}*_~，。；：！？、）」』】》…”’»"
# Markdown renderers exclude these characters at the end of an address.
_NEVER_IN = "?!.,:;*_~'\")"
_ADDRESS = re.compile(
    rf"""
      [a-z][a-z0-9+.-]{{0,30}}:(?://|(?<=[a-z0-9.+-]{{2}}:)\\)[/\\]*{_SIGN}+  # any scheme
    # Schemes that a browser or another program accepts with one slash or none.
    | (?<![a-z0-9])(?:https?|ftps?|wss?|javascript|vbscript|mailto|tel|blob|view-source):{_SIGN}+
    | (?<![a-z0-9])data:[^{_STOP},;]*[,;]{_SIGN}*
    | (?<![a-z0-9])www\d{{0,3}}\.{_SIGN}+
    | (?<![:/\\\w])[/\\]{{2}}[^{_STOP}/\\]+\.{_SIGN}+         # the scheme of the page
    | [\w.+-]{{1,64}}@[\w-]+(?:\.[\w-]+)+                           # mail
    """,
    re.IGNORECASE | re.VERBOSE,
)
_LABEL = r"\[(?P<{0}>[^\[\]]*)\]"
_TARGET = r"\([^()]*(?:\([^()]*\)[^()]*)*\)"
_IMAGE = re.compile(rf"!{_LABEL.format('alt')}(?:{_TARGET}|\[[^\[\]]*\])?")
_LINK = re.compile(rf"{_LABEL.format('text')}(?P<target>{_TARGET})")
_DEFINITION = re.compile(r"^(?P<label>[ \t>]*\[[^\[\]\n]+\]):[ \t]*(?P<target>\S*)", re.MULTILINE)
_AUTOLINK = re.compile(r"<([a-z][a-z0-9+.-]*:[^<>\s]*|[^<>\s@]+@[^<>\s]+)>", re.IGNORECASE)
# Tags with an effect of their own, and all tags with attributes or without an end.
_TAG = re.compile(
    r"<(?=[a-z/!?](?:[^<>]*=|[^<>]*(?:<|\Z))|/?(?:script|style|iframe|object|embed|svg|math|link"
    r"|meta|base|img|video|audio|form|template|frame|applet)\b|[!?])",
    re.IGNORECASE,
)
# Entities of characters in addresses; "&lt;" and the like stay, because they do not begin a tag.
_ENTITY = re.compile(
    "&(?:#[0-9]+|#x[0-9a-f]+|colon|sol|bsol|period|commat|Tab|NewLine|[lr]par|[lr]sqb);?",
    re.IGNORECASE,
)


class FilteredText(NamedTuple):
    """text: The text to show. removed: Number of removed links and images."""

    text: str
    removed: int


def find_addresses(texts: Iterable[str]) -> dict[str, str]:
    """Finds the addresses in the evidence that a model was shown.

    Returns: The addresses as written, by their normalised form.
    """
    found: dict[str, str] = {}
    for text in texts:
        for match in _ADDRESS.finditer(strip_hidden_text(text)):
            address = _trim_address(_WIDE_STOP.split(match.group())[0])
            if key := _normalize_address(address):
                found.setdefault(key, address)
    return found


def filter_links(text: str, allowed: Mapping[str, str]) -> FilteredText:
    """Removes every link that is not allowed from a text.

    Args:
        text: Text of an answer, Markdown or plain.
        allowed: Result of `find_addresses`.
    Returns: The text, in which removed addresses become "(link removed)", and removed links and
        images are reduced to their text.
    """
    counted = 0

    def image(match: re.Match[str]) -> str:
        nonlocal counted
        counted += 1
        return match["alt"] or "(image removed)"

    def link(match: re.Match[str]) -> str:
        nonlocal counted
        target = match["target"][1:-1].strip().split(maxsplit=1)
        address = allowed.get(_normalize_address(target[0].strip("<>"))) if target else None
        if address is not None:
            return match["text"] if match["text"] == address else f"{match['text']} ({address})"
        counted += 1
        return match["text"] or REMOVED_LINK

    def definition(match: re.Match[str]) -> str:
        address = allowed.get(_normalize_address(match["target"].strip("<>")))
        # A space before the colon makes this plain text; the address is checked below.
        return f"{match['label']} : {match['target']}" if address is None else match.group()

    def plain(match: re.Match[str]) -> str:
        nonlocal counted
        found = match.group()
        for end in (len(found), *(stop.start() for stop in _WIDE_STOP.finditer(found))):
            address = _trim_address(found[:end])
            if (known := allowed.get(_normalize_address(address))) is not None:
                # The space keeps the following text from being read as part of the address.
                rest = _ADDRESS.sub(plain, found[len(address) :])
                return f"{known}{' ' if rest.strip(_NEVER_IN) else ''}{rest}"
        counted += 1
        rest = found[len(_trim_address(_WIDE_STOP.split(found)[0])) :]
        return REMOVED_LINK + (_ADDRESS.sub(plain, rest) if len(rest) < len(found) else "")

    text = strip_hidden_text(text)
    while (read := _ENTITY.sub(lambda match: html.unescape(match.group()), text)) != text:
        text = strip_hidden_text(read)
    for pattern, change in ((_IMAGE, image), (_LINK, link)):
        while (changed := pattern.sub(change, text)) != text:
            text = changed
    text = _DEFINITION.sub(definition, text)
    text = _AUTOLINK.sub(r"\1", text)
    text = _ADDRESS.sub(plain, text)
    return FilteredText(_defuse(text), counted)


def defuse_text(text: str) -> str:
    """Returns stored text in which links, images and tags are plain text, word for word."""
    text = _DEFINITION.sub(r"\g<label> : \g<target>", text)
    return _defuse(_AUTOLINK.sub(r"\1", text))


def _defuse(text: str) -> str:
    return _TAG.sub("< ", text.replace("](", "] (").replace("![", "! ["))


def _trim_address(address: str) -> str:
    """Returns an address without trailing punctuation of the sentence."""
    while address and address[-1] in _TRAILING:
        if address[-1] == ")" and address.count("(") >= address.count(")"):
            break
        address = address[:-1]
    return address


def _normalize_address(address: str) -> str:
    """Returns the address as a browser interprets it, for comparison; empty if it is invalid."""
    text = address.replace("\\", "/")
    if text.lower().startswith("www."):
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        host = unquote(parts.hostname or "")
        port = parts.port
    except ValueError:
        return ""
    if not parts.scheme and not host:
        return _normalize_address(f"mailto:{text}") if "@" in text else ""
    try:
        host = host.encode("idna").decode()
    except UnicodeError:
        return ""
    login = parts.netloc.rpartition("@")[0]
    shown = "" if port in (None, {"http": 80, "https": 443}.get(parts.scheme)) else f":{port}"
    path = quote(unquote(parts.path), safe="/:@!$&'()*+,;=~") or ("/" if host else "")
    query = f"?{parts.query}" if parts.query else ""
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    return f"{parts.scheme}://{login}@{host}{shown}{path}{query}{fragment}"
