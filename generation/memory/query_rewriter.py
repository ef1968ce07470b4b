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
    DETERMINERS,
    ENGLISH,
    FUNCTION,
    GENERIC,
    GENERIC_TRAITS,
    JOINS,
    PERSONS,
    PREPOSITIONS,
    words_of,
)
from generation.memory.references import (
    content_words,
    find_reference,
    is_clause,
    plain_word,
    plain_words,
    written_words,
)
from nearline.contract import MAX_QUERY_CHARACTERS, Turn
from retrieval.index.lexical.text_analysis import Analyser, split_words

_MOST_CARRIED = 12  # Maximum words that are carried over.
_LONG = 30  # Words; a longer question is not repeated completely.
_ASKED_ALONE = words_of("why how when where who which what")
_LITTLE = 2  # Most content words of a question that means nothing without its reference.
# Content words, and characters; questions with more are always self-contained.
_MUCH, _VERY_MUCH = 12, 500
_SHORT, _SHORT_SIGNS = 3, 8  # Words, or characters of a script without spaces.
_NOUN_FRAGMENT, _FRAGMENT, _PLAIN_FRAGMENT = 3, 10, 4  # Words; the last without a question mark.
_ANALYSER = Analyser("english")
# "this collection", "these documents": what the caller asks about is at hand.
_DEMONSTRATED = re.compile(
    r"\b(?:this|these|that|those) (?!(?:one|ones|is|are|was|were|do|does|did|can|be)\b)[a-z]{3,}",
    re.I,
)
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
# "reading", "writing"; not "during", nor words for the manner: "using Python 3.12".
_DOING = re.compile(
    r"(?!(?:during|including|excluding|regarding|concerning|following|using|according)\b)"
    r"[a-z]{2,}ing\b"
)


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


def unresolved_reference(question: str, turns: Sequence[Turn]) -> str:
    """Returns the words by which a question refers to something that no earlier turn names.

    Only questions with little else to search for count: "And how large is it?", but not "Who was
    predicted by Jesus to betray him?".

    Args:
        question: The question as the caller wrote it.
        turns: The turns before it.
    Returns: The words, such as "it"; empty if the question can be understood.
    """
    if any(not _dangling(turn.condensed or turn.question) for turn in turns):
        return ""
    return _dangling(question)


def _dangling(question: str) -> str:
    asked = _without(_POLITE, question.strip())
    body = _without(_ABOUT, _without(_JOINED, asked))
    words, content = plain_words(body), content_words(body)
    # A capital letter or a digit marks a name.
    named = any(re.search(r"[_\dA-Z]", word) for word in content)
    if not words or named or len(content) > _LITTLE or not _is_english(question, ""):
        return ""
    if _DEMONSTRATED.search(body) or _REFERRED.search(body):
        return ""
    if reference := find_reference(body):
        return reference
    alone = len(words) == 1 and words[0] in _ASKED_ALONE
    led = body != asked and not is_clause(body, words)
    return asked.rstrip("?!. ") if alone or led else ""


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
    words = plain_words(body)
    content = content_words(body)
    if not content:
        # "why?", "tell me more": no content of its own.
        return f"{_repeated(standing)} {question}" if words else ""
    refers = len(content) < _MUCH and bool(find_reference(body) or _is_generic(words, content))
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
    return not ENGLISH.isdisjoint(plain_words(question) + plain_words(standing))


def _without(lead: re.Pattern[str], text: str) -> str:
    match = lead.match(text)
    return text[match.end() :] if match else text


def _is_fragment(body: str, words: list[str], *, led: bool, contrasted: bool) -> bool:
    """Returns whether a text is a fragment: "with a timeout", "if it fails", "Python 3.12".

    Args:
        led: Whether it follows "and", "what about", …
        contrasted: Whether it follows "what about", …
    """
    if is_clause(body, words):
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


def _is_generic(words: list[str], content: list[str]) -> bool:
    """Returns whether a text asks for a property of everything: "which exceptions are raised?"."""
    if not (GENERIC | GENERIC_TRAITS).issuperset(map(plain_word, content)) or "between" in words:
        return False
    named = {words[at - 1] if at else "" for at, word in enumerate(words) if word in GENERIC}
    if not named:
        return True
    return named.isdisjoint(("a", "an")) and not named.isdisjoint(
        words_of("the which what any many all")
    )


def _attached(fragment: str, standing: str) -> str:
    """Appends a fragment to the self-contained question, or replaces what it contrasts with."""
    new = content_words(fragment)
    old = written_words(standing)
    led = plain_words(fragment)[0]
    named = _contrasts(old, new[0]) if len(new) == 1 else []
    if led not in PREPOSITIONS | JOINS and _REFERRED.search(standing):
        # "how do I stop it (thread)?", "and a subprocess?": the fragment replaces the thread.
        return _REFERRED.sub(lambda _: f"({' '.join(new)})", standing)
    for before, surface in pairwise(old):
        run: tuple[str, ...] = ()
        if len(new) == 2 and plain_word(before) not in FUNCTION:
            # "a CSV file", "a JSON file"; "Python 3.11", "Python 3.12".
            same_head = plain_word(surface) == plain_word(new[1])
            versions = surface[0].isdigit() and new[1][0].isdigit()
            if same_head or (versions and plain_word(before) == plain_word(new[0])):
                run = (before, surface)
        elif named == [surface]:
            # "on Windows", "on Linux"; "CSV", "JSON". Not "install Postgres", "on Windows".
            placed = plain_word(before) in PREPOSITIONS
            alike = placed or _shape(surface) != "Aa"
            if plain_word(before) == led if led in PREPOSITIONS else alike:
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
    if not word.isalpha() or plain_word(word) in FUNCTION:
        return ""
    if len(word) > 1 and word.isupper():
        return "A"
    return "Aa" if word.istitle() else ""


def _repeated(standing: str) -> str:
    return standing if len(written_words(standing)) <= _LONG else " ".join(_carried(standing, ""))


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
    seen = {_stem(word) for word in written_words(question)}
    words: list[str] = []
    for word in content_words(standing):
        if _stem(word) not in seen:
            seen.add(_stem(word))
            words.append(word)
    things = [
        word for word in words if plain_word(word) not in GENERIC and plain_word(word) != acted
    ]
    return (things or words)[:_MOST_CARRIED]


def _stem(word: str) -> str:
    return _ANALYSER.stems([plain_word(word)])[0]
