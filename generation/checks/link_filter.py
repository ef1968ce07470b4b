"""Leaves in an answer only those links that stand in the evidence it was written from.

A model can be talked into links by what it reads: one that carries what was said out to a stranger,
or one that looks like another. So an address stays only where the evidence has the very same one;
no image stays, and no HTML. What is shown of a Markdown link is its text, then its address.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from generation.checks.hidden_text import strip_hidden_text

REMOVED_LINK = "(link removed)"

# An address ends at these; what stands before, but no sign of its own end, is the address.
_STOP = r"\s<>\"`"
_SIGN = rf"[^{_STOP}]"
_WIDE_STOP = re.compile("[，。；：！？、（）「」『』【】《》]")
_TRAILING = ".,;:!?'\")]}*_~，。；：！？、）」』】》…”’»"
# Readers of Markdown take these at the end of an address for signs of the sentence.
_NEVER_IN = "?!.,:;*_~'\")"
_ADDRESS = re.compile(
    rf"""
      [a-z][a-z0-9+.-]{{0,30}}:(?://|(?<=[a-z0-9.+-]{{2}}:)\\)[/\\]*{_SIGN}+  # any scheme
    # What a browser or another program takes without slashes, or with one.
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
# Tags that do something by themselves, and whatever has an attribute or no end.
_TAG = re.compile(
    r"<(?=[a-z/!?](?:[^<>]*=|[^<>]*(?:<|\Z))|/?(?:script|style|iframe|object|embed|svg|math|link"
    r"|meta|base|img|video|audio|form|template|frame|applet)\b|[!?])",
    re.IGNORECASE,
)
# What stands for a sign of an address; "&lt;" and its like stay, and begin no tag.
_ENTITY = re.compile(
    "&(?:#[0-9]+|#x[0-9a-f]+|colon|sol|bsol|period|commat|Tab|NewLine|[lr]par|[lr]sqb);?",
    re.IGNORECASE,
)


class FilteredText(NamedTuple):
    """text: What may be shown. removed: How many links and images were taken out of it."""

    text: str
    removed: int


def find_addresses(texts: Iterable[str]) -> dict[str, str]:
    """Finds the addresses in the evidence that was shown.

    Returns: Each as it is compared, and as it stands there.
    """
    found: dict[str, str] = {}
    for text in texts:
        for match in _ADDRESS.finditer(strip_hidden_text(text)):
            address = _trim_address(_WIDE_STOP.split(match.group())[0])
            if key := _normalize_address(address):
                found.setdefault(key, address)
    return found


def filter_links(text: str, allowed: Mapping[str, str]) -> FilteredText:
    """Takes out of a text every link that is not allowed.

    Args:
        text: Of an answer, Markdown or plain.
        allowed: What `find_addresses` found.
    Returns: Removed addresses leave "(link removed)"; removed links and images leave their text.
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
        # With a space before its colon it defines nothing; its address is looked at below.
        return f"{match['label']} : {match['target']}" if address is None else match.group()

    def plain(match: re.Match[str]) -> str:
        nonlocal counted
        found = match.group()
        for end in (len(found), *(stop.start() for stop in _WIDE_STOP.finditer(found))):
            address = _trim_address(found[:end])
            if (known := allowed.get(_normalize_address(address))) is not None:
                # A space, so that no reader takes what follows for a part of the address.
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
    # What is left of a link, an image or a tag is none any more.
    text = text.replace("](", "] (").replace("![", "! [")
    return FilteredText(_TAG.sub("< ", text), counted)


def _trim_address(address: str) -> str:
    """Returns an address without the signs of the sentence around it."""
    while address and address[-1] in _TRAILING:
        if address[-1] == ")" and address.count("(") >= address.count(")"):
            break
        address = address[:-1]
    return address


def _normalize_address(address: str) -> str:
    """Returns an address as a browser reads it, to compare; empty where it is none."""
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
