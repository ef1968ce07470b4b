"""Removes text that is invisible to a reader but not to a model."""

from __future__ import annotations

import re

# Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt): soft hyphen, zero-width
# characters, direction marks, fillers, variation selectors, tags; also interlinear annotation and
# surrogates.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff\ud800-\udfff]"
)
_LINE_END = re.compile("\r\n?|[\u000b\u000c\u0085\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")


def strip_hidden_text(text: str) -> str:
    """Returns a text without invisible, direction and control characters or lone surrogates.

    Line ends of every kind become "\\n", other control characters become a space, and tabs stay.
    Persian and some Indic words lose a joiner, and emoji a variant, which changes only their
    appearance.
    """
    return _INVISIBLE.sub("", _CONTROL.sub(" ", _LINE_END.sub("\n", text)))
