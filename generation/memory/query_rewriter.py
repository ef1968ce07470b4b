"""Rewrites a follow-up question as a self-contained one, by rules for English.

A follow-up is recognised by what it lacks. A *fragment* ("and with a timeout?", "on Windows?") is
appended to the last self-contained question, or replaces the part that it contrasts with. A
question that *refers* ("how do I stop it?", "is there a faster way?", "what is the default?") is
followed by the content words of that question. All other questions are unchanged: after a change of
topic, old words would find the wrong documents, whereas a missed follow-up is no worse than no
rewriting.

In other languages, only a very short question counts as a follow-up; it is appended to the last
question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from generation.memory.english_words import (
    AUXILIARIES,
    DETERMINERS,
    ENGLISH,
    FUNCTION,
    GENERIC,
    GENERIC_TRAITS,
    IMPERATIVES,
    JOINS,
    OWN,
    PERSONS,
    PREPOSITIONS,
    PRONOUNS,
    WH,
    words_of,
)
from nearline.contract import MAX_QUERY_CHARACTERS, Turn
from retrieval.index.lexical.text_analysis import Analyser, split_words

_MOST_CARRIED = 12  # Maximum words that are carried over.
_LONG = 30  # Words; a longer question is not repeated completely.
# Content words, and characters; questions with more are always self-contained.
_MUCH, _VERY_MUCH = 12, 500
_SHORT, _SHORT_SIGNS = 3, 8  # Words, or characters of a script without spaces.
_NOUN_FRAGMENT, _FRAGMENT, _PLAIN_FRAGMENT = 3, 10, 4  # Words; the last without a question mark.
_ANALYSER = Analyser("english")
_REFERRED = re.compile(r"\([^()]+\)(?=[?!. ]*$)")  # As appended by `_with_words`.

_POLITE = re.compile(
    r"(?:(?:ok|okay)\b[\s,.!;:-]*|(?:thanks?(?: you)?(?: (?:a lot|so much|very much))?|great|cool"
    r"|nice|right|well|hm+|ah|oh|yes|yeah|yep|no|nope|sorry|please|hey|hi|hello|got it|i see"
    r"|perfect|good|sure|alright|interesting)[,.!;:]+\s*)+",
    re.I,
)
_JOINED = re.compile(r"(?:(?:and|but|or|so|then|also|plus)\b[\s,]*)+", re.I)
_ABOUT = re.compile(
    r"(?:(?:what|how)(?:'s)? about|what of|i meant?|(?:the )?same (?:thing )?(?:for|with))\b\s*"
    r"|what (?=(?:if|when)\b)",
    re.I,
)
_TOKEN = re.compile(r"[^\s,;:!?()\[\]\"“”«»]+")
_NOT_LATIN = re.compile(r"[^\W\d_a-zA-Z\u00aa-\u024f\u1e00-\u1eff]")
_SIGN = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff]")
_VERB = re.compile(
    r"\b(?:do|does|did|can|could|should|would|will|must|to)\s+(?:(?:i|we|you|one)\s+)?(\w+)", re.I
)
# "stop it", not "does it stop": the pronoun refers to a thing, not to an action.
_OBJECT = re.compile(
    r"\b(?:do|can|could|should|would|must|did|to)\s+(?:(?:i|we|you|one)\s+)?(?!it\b|they\b|this\b"
    r"|that\b|these\b|those\b)\w+\b.*\b(?:it|them|this|that|these|those|one)\b",
    re.I,
)
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
# "reading", "writing"; not "during", nor words for the manner: "using Python 3.12".
_DOING = re.compile(
    r"(?!(?:during|including|excluding|regarding|concerning|following|using|according)\b)"
    r"[a-z]{2,}ing\b"
)
_BOUNDARY = re.compile(r"[,;.!?]\s|\b(?:and|then|but)\b", re.I)
_SUBORDINATE = re.compile(r"\b(?:when|if|while|because|until|after|before|that)\b", re.I)


def rewrite_query(question: str, turns: Sequence[Turn]) -> str:
    """Returns a question as a self-contained one.

    Args:
        question: The question as the caller wrote it.
        turns: The turns before it, oldest first; a turn's condensed question has precedence.
    Returns: The question, unchanged if it lacks nothing or if nothing can be added.
    """
    standing = ""
    for turn in turns:
        standing = turn.condensed or _resolve(turn.question, standing)
    return _resolve(question, standing)


def _resolve(question: str, standing: str) -> str:
    """Completes a question from the last self-contained one."""
    if not standing or not question.strip() or len(question) > _VERY_MUCH:
        return question
    resolved = _complete(question.strip(), standing) or question
    return question if len(resolved) > MAX_QUERY_CHARACTERS else resolved


def _complete(question: str, standing: str) -> str:
    """Returns the completed question; empty if it lacks nothing."""
    if not _is_english(question, standing):
        few = _SHORT_SIGNS if _SIGN.search(question) else _SHORT
        return f"{_repeated(standing)} {question}" if len(split_words(question)) <= few else ""
    asked = _without(_POLITE, question)
    joined = _without(_JOINED, asked)
    body = _without(_ABOUT, joined)
    words = _words(body)
    content = _content(body)
    if not content:
        # "why?", "tell me more": no content of its own.
        return f"{_repeated(standing)} {question}" if words else ""
    refers = len(content) < _MUCH and (_refers(body) or _is_generic(words, content))
    if not refers and len(content) > 1 and _DOING.match(words[0]):
        # "what about reading a zip file?" asks about another action.
        return ""
    # "and capture its output?" asks about another action; "and with a pipe?" does not.
    acts = refers and words[0] not in PREPOSITIONS | JOINS | DETERMINERS
    if not acts and _is_fragment(body, words, led=body != asked, contrasted=body != joined):
        return _attached(body, standing)
    return _with_words(question, standing) if refers else ""


def _is_english(question: str, standing: str) -> bool:
    if _NOT_LATIN.search(question):
        return False
    return not ENGLISH.isdisjoint(_words(question) + _words(standing))


def _without(lead: re.Pattern[str], text: str) -> str:
    match = lead.match(text)
    return text[match.end() :] if match else text


def _surfaces(text: str) -> list[str]:
    """Returns the words of a text as written: `asyncio.run`, `3.12`, `don't`."""
    found = (match.group().strip(".'`’-") for match in _TOKEN.finditer(text))
    return [word for word in found if word]


def _plain(word: str) -> str:
    """Returns a word in the form of `english_words`: "it's" is "it", "don't" is "do"."""
    return re.split(r"n['’]t$|['’]", word.lower())[0] or word.lower()


def _words(text: str) -> list[str]:
    return [_plain(word) for word in _surfaces(text)]


def _content(text: str) -> list[str]:
    """Returns the content words of a text, as written."""
    return [word for word in _surfaces(text) if _plain(word) not in FUNCTION]


def _is_fragment(body: str, words: list[str], *, led: bool, contrasted: bool) -> bool:
    """Returns whether a text is a fragment: "with a timeout", "if it fails", "Python 3.12".

    Args:
        led: Whether it follows "and", "what about", …
        contrasted: Whether it follows "what about", …
    """
    if _is_clause(body, words):
        return False
    asks = body.endswith("?")
    if len(words) > (_FRAGMENT if asks else _PLAIN_FRAGMENT):
        return False
    if words[0] in PERSONS - words_of("my our your"):
        return contrasted
    return (
        led
        or words[0] in PREPOSITIONS | JOINS | {"where"}
        or (asks and len(words) <= _NOUN_FRAGMENT)
    )


def _is_clause(body: str, words: list[str]) -> bool:
    """Returns whether a text asks or demands: it has a question word, or begins with a verb."""
    if words[0] in PREPOSITIONS and words[1:2] in (["what"], ["which"]):
        # "at what dose?", but not "at what dose is it safe?"
        return not AUXILIARIES.isdisjoint(words)
    if not {"what", "why", "how"}.isdisjoint(words):
        return True
    for part in body.split(","):
        first, second, *_ = [*_words(part), "", ""]
        if first in AUXILIARIES | IMPERATIVES | WH or second in WH:
            return True
        if first in ("when", "where") and second in AUXILIARIES:
            return True
    return False


def _refers(body: str) -> bool:
    """Returns whether a text refers to something said before."""
    if _REFERENCES.search(body):
        return True
    expletive = _EXPLETIVE.search(body)
    tokens = list(_TOKEN.finditer(body))
    words = [_plain(match.group().strip(".'`’-")) for match in tokens]
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
        told = body[: match.start()]
        # "Spores are hard to dispose of once they are dispersed": a statement has its own subject.
        if word in OWN and len(_content(told)) > 1 and not _is_clause(body, words):
            continue
        if not _has_antecedent(told):
            return True
    return False


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
    surfaces = _surfaces(clause)
    return any(
        _plain(before) in leads or re.search(r"[._\d]|(?!^)[A-Z]", surface)
        for before, surface in pairwise(["", *surfaces])
        if _plain(surface) not in FUNCTION
    )


def _is_generic(words: list[str], content: list[str]) -> bool:
    """Returns whether a text asks for a property of everything: "which exceptions are raised?"."""
    if not (GENERIC | GENERIC_TRAITS).issuperset(map(_plain, content)) or "between" in words:
        return False
    named = {words[at - 1] if at else "" for at, word in enumerate(words) if word in GENERIC}
    if not named:
        return True
    return named.isdisjoint(("a", "an")) and not named.isdisjoint(
        words_of("the which what any many all")
    )


def _attached(fragment: str, standing: str) -> str:
    """Appends a fragment to the self-contained question, or replaces what it contrasts with."""
    new = _content(fragment)
    old = _surfaces(standing)
    led = _words(fragment)[0]
    named = _contrasts(old, new[0]) if len(new) == 1 else []
    if led not in PREPOSITIONS | JOINS and _REFERRED.search(standing):
        # "how do I stop it (thread)?", "and a subprocess?": the fragment replaces the thread.
        return _REFERRED.sub(lambda _: f"({' '.join(new)})", standing)
    for before, surface in pairwise(old):
        run: tuple[str, ...] = ()
        if len(new) == 2 and _plain(before) not in FUNCTION:
            # "a CSV file", "a JSON file"; "Python 3.11", "Python 3.12".
            same_head = _plain(surface) == _plain(new[1])
            versions = surface[0].isdigit() and new[1][0].isdigit()
            if same_head or (versions and _plain(before) == _plain(new[0])):
                run = (before, surface)
        elif named == [surface]:
            # "on Windows", "on Linux"; "CSV", "JSON". Not "install Postgres", "on Windows".
            placed = _plain(before) in PREPOSITIONS
            alike = placed or _shape(surface) != "Aa"
            if _plain(before) == led if led in PREPOSITIONS else alike:
                run = (surface,)
        if run:
            there = r"\s+".join(map(re.escape, run))
            return re.sub(rf"(?<!\w){there}(?!\w)", lambda _: " ".join(new), standing, count=1)
    return f"{_repeated(standing).rstrip('?!. ')} {fragment}"


def _contrasts(old: list[str], new: str) -> list[str]:
    """Returns the names in a question that have the same form as a new one."""
    shape = _shape(new)
    return [word for word in old[1:] if _shape(word) == shape] if shape else []


def _shape(word: str) -> str:
    """Returns the form of a name: "Germany" is Aa, "JSON" is A, "3.12" is 0; empty if none."""
    if word[0].isdigit():
        return "0"
    if not word.isalpha() or _plain(word) in FUNCTION:
        return ""
    if len(word) > 1 and word.isupper():
        return "A"
    return "Aa" if word.istitle() else ""


def _repeated(standing: str) -> str:
    return standing if len(_surfaces(standing)) <= _LONG else " ".join(_carried(standing, ""))


def _with_words(question: str, standing: str) -> str:
    words = _carried(standing, question)
    if not words:
        return ""
    text = question.rstrip("?!. ")
    return f"{text} ({' '.join(words)}){question[len(text) :]}"


def _carried(standing: str, question: str) -> list[str]:
    """Returns the distinct words that a question takes over, without its own words."""
    verb = _VERB.search(standing) if _OBJECT.search(question) else None
    acted = verb.group(1).lower() if verb else ""
    seen = {_stem(word) for word in _surfaces(question)}
    words: list[str] = []
    for word in _content(standing):
        if _stem(word) not in seen:
            seen.add(_stem(word))
            words.append(word)
    things = [word for word in words if _plain(word) not in GENERIC and _plain(word) != acted]
    return (things or words)[:_MOST_CARRIED]


def _stem(word: str) -> str:
    return _ANALYSER.stems([_plain(word)])[0]
