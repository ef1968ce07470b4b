"""Checks a sentence against the text of its named source.

Rules check the details in which errors of a model are most harmful: numbers, dates, names, negation
and direction. A score then measures how much of the wording occurs in the source. Neither
understands the text: a true paraphrase in other words fails, and a false one in the same words may
pass (docs/quality.md, "Groundedness").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from generation.checks.hidden_text import strip_hidden_text
from generation.checks.quantities import MONTHS, Quantities, Quantity, extract_quantities
from generation.evidence.sentence_features import character_runs
from generation.evidence.sources import Passage
from nearline.sentences import sentences
from retrieval.index.lexical.text_analysis import Analyser, split_words

# Maximum length of a run of neighbouring sentences that forms one citation.
_MOST_PASSAGES = 3
# Cost of each sentence of a run, and of each broken rule. Without the latter, a run that
# contradicts the sentence could lose to one that does not mention the subject.
_LONGER = 0.06
_BROKEN = 0.15
# Number of best sentences around which runs are tried.
_BEST = 3

_STOP_WORDS = frozenset(
    "a about after all also am an and any are as at be been before being between both but by can "
    "could did do does done during each either for from had has have having he her here him his "
    "how i if in into is it its itself just may me might more most must my no nor not of off on "
    "once only or other our out over own s same shall she should so some such t than that the "
    "their them then there these they this those through to too under until up upon us very was "
    "we were what when where which while who whom whose why will with would you your".split()
)
_NEGATION = re.compile(
    r"\b(?:not(?!\s+only\b)|no|never|none|neither|nor|nobody|nothing|nowhere|without|cannot|hardly"
    r"|lacks?|lacked|lacking|fail(?:s|ed)?\s+to|unable|absen(?:t|ce))\b|n['’]t\b",
    re.IGNORECASE,
)
# Words that express absence without a negation.
_ABSENCE = re.compile(
    r"\b(?:un(?!der|til|ion|it)\w{3,}|deficien\w+|loss|lost|little|few|in(?:ability|effective))\b",
    re.IGNORECASE,
)
# A text with words of only one direction opposes a text with words of only the other.
_MORE = "increase raise rise grow gain enhance elevate promote upregulate improve higher upward"
_LESS = "decrease reduce lower decline fall drop diminish attenuate inhibit suppress impair"
# The scope of a negation: up to the end of the clause, at most this many content words.
_CLAUSE_END = re.compile(r"[.,;:!?()]")
_NEGATED_WORDS = 2

_TOKEN = re.compile(r"\w+(?:(?:::|[.:/'’-])\w+)*(?:\(\))?")
_STOPS = ".!?…:;"
_POSSESSIVE = re.compile(r"['’]s?\Z")
_IDENTIFIER = re.compile(r"_|::|\(\)|[a-z]{2}\.[a-z]{2}|[a-z][A-Z]", re.ASCII)
_PARTS = re.compile(r"[\W_]+")


WEAK_SUPPORT = "the source says little of it"


class Groundedness(NamedTuple):
    """The result of a check.

    supported: Whether no rule is broken and the score is high enough.
    score: Share of the sentence's wording that occurs in the source, 0..1.
    problems: Descriptions of the problems, for people.
    """

    supported: bool
    score: float
    problems: tuple[str, ...]


class GroundednessRules(NamedTuple):
    """Strictness of a check.

    floor: Minimum score, 0..1. On SciFact train, 0.4 admits 70 % of true paraphrases, and 28 % of
        sentences on which the source is silent.
    names: Whether names and identifiers must occur in the source. This suits generated text, but
        rejects half of human paraphrases, and does not suit languages that capitalise nouns.
    language: Language of the stemmer. Numbers, dates, negation and names are parsed as English.
    """

    floor: float = 0.4
    names: bool = True
    language: str = "english"


class _Facts(NamedTuple):
    """The features of a text that are compared; `plain` has the content stems outside negations."""

    text: str
    stems: frozenset[str]
    runs: frozenset[str]
    counted: Quantities
    plain: frozenset[str]
    negated: tuple[tuple[str, ...], ...]


def check_groundedness(
    sentence: str,
    span: str,
    *,
    title: str = "",
    question: str = "",
    rules: GroundednessRules | None = None,
) -> Groundedness:
    """Checks a sentence of an answer.

    Args:
        sentence: The sentence, without markers.
        span: Text of its source.
        title: Title of the source's document; its words and names count as part of the source.
        question: The question; names in it are permitted, too.
        rules: Strictness; if None, the defaults for generated text apply.
    """
    rules = rules or GroundednessRules()
    said, source = _facts(sentence, rules.language), _facts(span, rules.language)
    titled = _facts(title, rules.language)
    parts = [_facts(span[start:end], rules.language) for start, end in sentences(span)]
    nearest = max(parts, key=lambda part: _score(said, part, titled), default=source)
    problems = [
        *_number_problems(said.counted, source.counted, titled.counted),
        *(
            _name_problems(said.text, f"{titled.text}\n{source.text}", question)
            if rules.names
            else ()
        ),
        *_negation_problems(said, source, nearest),
        *_direction_problems(said, source),
    ]
    score = _score(said, source, titled)
    if score < rules.floor:
        problems.append(WEAK_SUPPORT)
    return Groundedness(not problems, score, tuple(problems))


def count_unknown_stems(sentence: str, known: str, language: str) -> int:
    """Returns the number of content stems of a sentence that a text lacks."""
    return len(_facts(sentence, language).stems - _facts(known, language).stems)


def best_passages(
    sentence: str,
    passages: Sequence[Passage],
    *,
    title: str = "",
    question: str = "",
    rules: GroundednessRules | None = None,
) -> Sequence[Passage]:
    """Returns the run of one to three neighbouring passages that supports a sentence best.

    Args:
        sentence: The sentence, without markers.
        passages: Neighbouring passages, at least one.
        title, question, rules: See `check_groundedness`.
    Returns: The run with most of the wording; broken rules and length reduce its rank.
    """
    rules = rules or GroundednessRules()
    said, titled = _facts(sentence, rules.language), _facts(title, rules.language)
    alone = [_score(said, _facts(one.text, rules.language), titled) for one in passages]
    best = sorted(range(len(passages)), key=lambda at: -alone[at])[:_BEST]
    runs = {
        (first, first + length)
        for at in best
        for length in range(1, _MOST_PASSAGES + 1)
        for first in range(max(0, at - length + 1), at + 1)
        if first + length <= len(passages)
    }

    def cost(run: tuple[int, int]) -> float:
        text = " ".join(one.text for one in passages[slice(*run)])
        found = check_groundedness(sentence, text, title=title, question=question, rules=rules)
        return (run[1] - run[0]) * _LONGER + len(found.problems) * _BROKEN - found.score

    return passages[slice(*min(sorted(runs), key=cost))]


@lru_cache(16)
def _analyser(language: str) -> Analyser:
    return Analyser(language, _STOP_WORDS)


@lru_cache(512)
def _facts(text: str, language: str) -> _Facts:
    words_of = _analyser(language).words
    # Stored text may have soft hyphens; answers have none.
    text = strip_hidden_text(text)
    negated, rest, at = [], [], 0
    for match in _NEGATION.finditer(text):
        end = _CLAUSE_END.search(text, match.end())
        scope = words_of(text[match.end() : end.start() if end else len(text)])
        negated.append(tuple(scope[:_NEGATED_WORDS]))
        # Words before the negation, and words of its clause after the negated ones.
        rest += words_of(text[at : match.start()])
        rest += scope[_NEGATED_WORDS:]
        at = max(at, end.start() if end else len(text), match.end())
    rest += words_of(text[at:])
    stems = frozenset(words_of(text))
    return _Facts(
        text,
        stems,
        frozenset(character_runs(text)),
        extract_quantities(text),
        frozenset(rest),
        tuple(negated),
    )


def _score(said: _Facts, source: _Facts, titled: _Facts) -> float:
    """Returns the mean of the shares of common content stems and of common runs of five
    characters."""
    stems = len(said.stems & (source.stems | titled.stems)) / (len(said.stems) or 1)
    runs = len(said.runs & (source.runs | titled.runs)) / (len(said.runs) or 1)
    if not said.stems or not said.runs:
        return stems if said.stems else runs
    return (stems + runs) / 2


def _number_problems(said: Quantities, source: Quantities, title: Quantities) -> list[str]:
    have = {*source.quantities, *title.quantities}
    dates = {*source.dates, *title.dates}
    problems = [
        f"date {words!r} is not in the source"
        for date, words in said.dates.items()
        if not any(date.within(other) for other in dates)
    ]
    numbers = {one.number for one in have} | {str(date.year) for date in dates if date.year}
    units = {one.unit for one in have}
    for (number, unit), words in said.quantities.items():
        if number not in numbers:
            problems.append(f"number {words!r} is not in the source")
        elif unit and Quantity(number, unit) not in have:
            # "3 or, at most, 4 minutes": the unit of a bare number may stand elsewhere.
            if not (Quantity(number, "") in have and unit in units):
                problems.append(f"unit of {words!r} differs from the source")
    return problems


def _negation_problems(said: _Facts, source: _Facts, nearest: _Facts) -> list[str]:
    """Finds statements that one text negates and the other affirms.

    The first two content words after a negation count as negated. `nearest` is the sentence of the
    source with the most similar wording; other sentences may use the same word without negation.
    """
    ours = {stem for scope in said.negated for stem in scope}
    theirs = {stem for scope in source.negated for stem in scope}
    denied = ours & source.plain - theirs
    silent = not source.negated or (denied and not ours & theirs)
    if said.negated and silent and not _ABSENCE.search(source.text):
        return ["negation is not in the source"]
    if any(
        scope[0] in said.plain and scope[0] not in ours and scope[0] not in text.plain
        for text in (source, nearest)
        for scope in text.negated
        if scope
    ):
        return ["negation in the source is left out"]
    return []


def _direction_problems(said: _Facts, source: _Facts) -> list[str]:
    more, less = (frozenset(_analyser("english").words(words)) for words in (_MORE, _LESS))
    for one, other in ((more, less), (less, more)):
        if said.stems & one and not said.stems & other:
            if source.stems & other and not source.stems & one:
                return ["direction (more or less) is opposed to the source"]
    return []


def _name_problems(sentence: str, source: str, question: str) -> list[str]:
    known = f"{source}\n{question}"
    plain = known.lower()
    words = set(split_words(known))
    stems = set(_analyser("english").stems(sorted(words)))
    problems = []
    for match in _TOKEN.finditer(sentence):
        name = _POSSESSIVE.sub("", match.group())
        at_start = _begins_sentence(sentence, match.start())
        if not _is_name(name, at_start) or name.lower().removesuffix("()") in plain:
            continue
        parts = [part for part in _PARTS.split(name.lower()) if part]
        if _IDENTIFIER.search(name):
            # `subprocess.run`, if a page about subprocess calls it `run()`.
            called = re.search(rf"\b{re.escape(parts[-1])}\(|[`.]{re.escape(parts[-1])}\b", plain)
            if called and all(part in words for part in parts):
                continue
        elif all(
            part in words or stem in stems or part.removesuffix("s") in words
            for part, stem in zip(parts, _analyser("english").stems(parts), strict=True)
        ):
            continue
        problems.append(f"name {name!r} is not in the source")
    return problems


def _is_name(token: str, at_start: bool) -> bool:
    letters = [sign for sign in token if sign.isalpha()]
    if not letters or token.lower() in _STOP_WORDS or token.lower() in MONTHS:
        return False
    if _IDENTIFIER.search(token):
        return True
    capitals = sum(sign.isupper() for sign in letters)
    # Acronyms (also "DNAs"), and letters with digits: "p53", "COVID-19".
    if capitals >= 2 and token[:2].isupper():
        return True
    if token[0].isalpha() and any(sign.isdigit() for sign in token):
        return True
    return token[0].isupper() and len(token) > 1 and not at_start


def _begins_sentence(text: str, at: int) -> bool:
    """Returns whether only signs stand between a position and a stop, a new line, or the start."""
    while at:
        before = text[at - 1]
        if before == "\n" or before in _STOPS:
            return True
        if before.isalnum() or before == "_":
            return False
        at -= 1
    return True
