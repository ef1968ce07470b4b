"""Finds what is not text on a web page: navigation, contents, indexes, permalinks, notices."""

from __future__ import annotations

import re
from collections.abc import Mapping

Attributes = Mapping[str, str | None]

_SKIPPED_TAGS = frozenset(
    "script style title noscript template svg math canvas iframe object audio video select "
    "textarea input nav footer head del s strike rt rp".split()
)
_SKIPPED_ROLES = frozenset(
    "navigation banner contentinfo search complementary doc-backlink doc-noteref".split()
)
# Words of `class` and `id`, by what writes them. Only whole words count: the class of a whole page
# may be "has-sidebar".
_SKIPPED_NAMES = frozenset(
    # DocBook, Sphinx and docutils
    "navheader navfooter toc list-of-tables list-of-figures list-of-examples list-of-equations "
    "indexdiv indexterm id_link sphinxsidebar sphinxsidebarwrapper headerlink toctree-wrapper "
    "genindextable modindextable indextable linenos lineno viewcode-link viewcode-back backrefs "
    "fn-bracket fn-backref footnote-reference footnote-backref footnote-ref footnoteref "
    # Texinfo, AsciiDoc, doxygen, javadoc
    "nav-panel mini-toc section-toc copiable-link copiable-anchor printindex footer footer-text "
    "permalink top-navigation top-nav sub-nav navbar-top navpath nav-path main-nav side-nav navtab "
    "tabs tabs2 tabs3 ttc titlearea anchor-link "
    # Sites
    "breadcrumb breadcrumbs crumbs nav navbar pagenav "
    "navigation sidebar table-of-contents tableofcontents pagination "
    "pager skip-link skiplink skip-nav skip-to-content cookie-banner cookie-notice cookie-consent "
    "cookies cookiebar edit-this-page editsection mw-editsection edit-page-link share social "
    "social-links newsletter print-only site-header site-footer page-footer "
    "pagefooter foot feedback".split()
)
_KEPT_ASIDES = re.compile(r"note|tip|warning|caution|important|admonition|callout|topic|footnote")
_INVISIBLE = re.compile(r"display\s{0,9}:\s{0,9}none", re.IGNORECASE)
_NAVIGATION_WORDS = re.compile(
    r"\b(?:next|prev|previous|up|top|home|contents|index|back|you are here)\b", re.IGNORECASE
)
_WORD = re.compile(r"\w")
_NOTICE = re.compile(
    r"\W*(?:edit (?:this page|on \w+)|(?:view|show) (?:page )?source|back to (?:the )?top|to top|"
    r"skip to (?:main )?content|(?:improve|print) this page|report (?:a bug|an issue)|"
    r"(?:next|previous|prev|up|top|home)\b.{0,80})\W*",
    re.IGNORECASE,
)
_MAX_NOTICE, _MAX_MENU_ITEM = 120, 40
# Links to these are content: an address, a number, a form to fill in.
_CONTENT_LINK = re.compile(r"mailto:|tel:|sms:", re.IGNORECASE)
_CONTENT_FILES = (".pdf", ".doc", ".docx", ".xls", ".xlsx", ".odt", ".ods", ".zip", ".csv")
_MARK = re.compile(r"[^\w]{0,3}\d{0,3}[^\w]{0,3}")


def names_of(attributes: Attributes) -> frozenset[str]:
    """Returns the words of `class` and `id`."""
    if not attributes:
        return frozenset()
    return frozenset(f"{attributes.get('class') or ''} {attributes.get('id') or ''}".split())


def is_furniture(tag: str, attributes: Attributes, names: frozenset[str]) -> bool:
    """Returns whether an element holds nothing of the text of its page."""
    if tag in _SKIPPED_TAGS:
        return True
    if tag in ("body", "html", "main") or (not attributes and tag not in ("aside", "button")):
        return False
    if tag == "aside":
        kinds = " ".join((*names, attributes.get("epub:type") or ""))
        return _KEPT_ASIDES.search(kinds) is None
    role = attributes.get("role")
    if "hidden" in attributes and attributes["hidden"] != "until-found":
        # Browsers show the panel of an accordion at a click.
        return role not in ("region", "tabpanel")
    return (
        attributes.get("aria-hidden") == "true"
        or role in _SKIPPED_ROLES
        or not names.isdisjoint(_SKIPPED_NAMES)
        or (tag == "table" and any(name.startswith(("menu", "index-")) for name in names))
        or (tag == "button" and "aria-controls" not in attributes)
        or _INVISIBLE.search(attributes.get("style") or "") is not None
    )


def is_navigation(text: str, outside_links: str, links: int) -> bool:
    """Returns whether a paragraph with some links only leads elsewhere."""
    if links == 0 or _WORD.search(_NAVIGATION_WORDS.sub("", outside_links)):
        return False
    return links > 1 or (len(text) <= _MAX_NOTICE and _NOTICE.fullmatch(text) is not None)


def is_menu(text: str, outside_links: str, links: int) -> bool:
    """Returns whether lines are links, but for one at most: that of the page itself."""
    breaks = text.count("\n")
    return links > 2 and links - 1 <= breaks <= links and len(outside_links) <= _MAX_MENU_ITEM


def is_mark(text: str, target: str, is_raised: bool) -> bool:
    """Returns whether a link is a permalink, the number of a footnote, or the way back from it."""
    if "#" not in target or _MARK.fullmatch(text) is None:
        return False
    return is_raised or not text.strip().isdecimal()


def leads_elsewhere(target: str) -> bool:
    """Returns whether a link leads to a page, rather than to an address or a file."""
    if not target or _CONTENT_LINK.match(target):
        return False
    return not target.lower().endswith(_CONTENT_FILES)
