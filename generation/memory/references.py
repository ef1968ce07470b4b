"""Finds what a question refers to: "it", "the second one", "anything else"."""

from __future__ import annotations

import re
from itertools import pairwise

from generation.memory.english_words import (
    AUXILIARIES,
    DETERMINERS,
    FUNCTION,
    IMPERATIVES,
    OWN,
    PREPOSITIONS,
    PRONOUNS,
    WH,
    words_of,
)

_TOKEN = re.compile(r"[^\s,;:!?()\[\]\"“”«»]+")
_EXPLETIVE = re.compile(
    r"\b(?:is|was|isn't|would|will|be|it's|it is|it was)\s+(?:it\s+)?(?:be\s+|still\s+|also\s+)?"
    r"(?:possible|ok|okay|safe|better|bad|good|best|necessary|worth|legal|allowed|common|easy"
    r"|hard|faster|fine|recommended|advisable|true|normal)\b.*\b(?:to|that|if|whether|when)\s+\w"
    r"|\b(?:does|did|will|would) it (?:take|mean|make sense|matter)\b.*\b(?:to|if|whether)\s+\w",
    re.I,
)
_REFERENCES = re.compile(
    r"\b(?:better|faster|simpler|easier|shorter|cleaner|safer|cheaper|other|another|different"
    r"|alternative|nicer|recommended|preferred)\s+(?:ways?|methods?|options?|solutions?"
    r"|approach(?:es)?|examples?|alternatives?)\b(?!\s+(?:to|of|for|than)\b)"
    r"|\byou (?:said|mentioned|told|wrote|suggested|meant)\b|\byour (?:answer|example|code)\b"
    r"|\b(?:which|that|this|other|another|first|second|third|last|better|faster|best|former|latter"
    r"|same|wrong|right) ones?\b"
    r"|\bthe (?:first|second|third|last) (?:option|method|approach|way|example|solution)\b"
    r"|\b(?:what|anything|something|where|how|who|anyone) else\b"
    r"|\b(?!(?:in|at|by|to|of|on|into|the)\b)\w+ ones?\s*[?.!]*$"
    r"|\b(?:an|some|more|any) examples?\s*[?.!]*$|^(?:which|what) \w+ are there\s*\?*$"
    r"|\bthe (?:former|latter)\b|\bthe difference (?:to|from)\b|\bdo the same\b"
    r"|\bthe same(?: (?:thing|way|true|result))?\s*[?.!]*$"
    r"|\b(?:instead|too|either|though|as well|the above)\s*[?.!]*$",
    re.I,
)
# "that" is usually a conjunction; after these words it is a pronoun.
_BEFORE_THAT = (
    PREPOSITIONS
    | AUXILIARIES
    | words_of("use like change avoid call fix stop catch handle prevent why how and but what")
)
_BOUNDARY = re.compile(r"[,;.!?]\s|\b(?:and|then|but)\b", re.I)
_SUBORDINATE = re.compile(r"\b(?:when|if|while|because|until|after|before|that)\b", re.I)


def written_words(text: str) -> list[str]:
    """Returns the words of a text as written: `asyncio.run`, `3.12`, `don't`."""
    found = (match.group().strip(".'`’-") for match in _TOKEN.finditer(text))
    return [word for word in found if word]


def plain_word(word: str) -> str:
    """Returns a word in the form of `english_words`: "it's" is "it", "don't" is "do"."""
    return re.split(r"n['’]t$|['’]", word.lower())[0] or word.lower()


def plain_words(text: str) -> list[str]:
    return [plain_word(word) for word in written_words(text)]


def content_words(text: str) -> list[str]:
    """Returns the content words of a text, as written."""
    return [word for word in written_words(text) if plain_word(word) not in FUNCTION]


def is_clause(body: str, words: list[str]) -> bool:
    """Returns whether a text asks or demands: it has a question word, or begins with a verb."""
    if words[0] in PREPOSITIONS and words[1:2] in (["what"], ["which"]):
        # "at what dose?", but not "at what dose is it safe?"
        return not AUXILIARIES.isdisjoint(words)
    if not {"what", "why", "how"}.isdisjoint(words):
        return True
    for part in body.split(","):
        first, second, *_ = [*plain_words(part), "", ""]
        if first in AUXILIARIES | IMPERATIVES | WH or second in WH:
            return True
        if first in ("when", "where") and second in AUXILIARIES:
            return True
    return False


def find_reference(text: str) -> str:
    """Returns the words by which a text refers to something said before; empty if it does not."""
    if phrase := _REFERENCES.search(text):
        return phrase.group().strip("?!. ")
    expletive = _EXPLETIVE.search(text)
    tokens = list(_TOKEN.finditer(text))
    words = [plain_word(match.group().strip(".'`’-")) for match in tokens]
    for at, (match, word) in enumerate(zip(tokens, words, strict=True)):
        before = words[at - 1] if at else ""
        after = words[at + 1] if at + 1 < len(words) else ""
        if word == "that":
            if after and before and before not in _BEFORE_THAT:
                continue
        elif word not in PRONOUNS:
            continue
        elif word == "it" and expletive and expletive.start() <= match.start() < expletive.end():
            continue
        elif word in ("this", "these") and after in words_of("year week month day time"):
            continue
        elif word == "those" and after in ("who", "that"):
            continue
        told = text[: match.start()]
        # "Spores are hard to dispose of once they are dispersed": a statement has its own subject.
        if word in OWN and len(content_words(told)) > 1 and not is_clause(text, words):
            continue
        if not _has_antecedent(told):
            return match.group().strip(".'`’-")
    return ""


def _has_antecedent(before: str) -> bool:
    """Returns whether a clause names what the next pronoun refers to: "open a file and read" it."""
    cuts = [match.start() for match in _BOUNDARY.finditer(before)]
    if cuts and _names(before[: cuts[-1]], DETERMINERS | PREPOSITIONS | AUXILIARIES):
        return True
    cuts = [match.start() for match in _SUBORDINATE.finditer(before)]
    if not cuts:
        return False
    # "my script hangs when" it; but in "what happens to the output if I kill" it, the
    # pronoun does not mean the output.
    subject = bool(_SUBORDINATE.fullmatch(before[cuts[-1] :].strip()))
    return _names(before[: cuts[-1]], DETERMINERS if subject else frozenset(("a", "an")))


def _names(clause: str, leads: frozenset[str]) -> bool:
    """Returns whether a clause names a thing: a word after one of `leads`, or a name."""
    surfaces = written_words(clause)
    return any(
        plain_word(before) in leads or re.search(r"[._\d]|(?!^)[A-Z]", surface)
        for before, surface in pairwise(["", *surfaces])
        if plain_word(surface) not in FUNCTION
    )
