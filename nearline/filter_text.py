"""Parser of text filters: `kind = "class" AND (year >= 2000 OR NOT tags IN ["a", "b"])`.

    filter    = part { OR part }              AND binds tighter than OR, NOT tighter than AND
    part      = unit { AND unit }
    unit      = NOT unit | ( filter ) | FIELD condition | WORDS "…" | PHRASE "…"
    condition = ( = | == | != | <> | < | <= | > | >= ) VALUE | VALUE TO VALUE
              | [NOT] IN [ VALUE, … ] | [NOT] EXISTS | IS [NOT] NULL

A field is a word, or quoted if it contains spaces or signs. A value is a quoted text ("a" or 'a',
with \\ before a quote or backslash), a number, true, false, an unquoted time (2024-05-01,
2024-05-01T12:00:00+02:00; UTC without a zone), or any other word, which is a text. Keywords are
case-insensitive; WORDS and PHRASE are keywords before a quoted text only. As in Meilisearch, `!=`
and `NOT IN` are true of an item without the attribute, and `a TO b` includes both ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

from nearline import filters as f
from nearline.errors import MAX_SHOWN, InvalidRequest
from nearline.times import in_utc

_TOKEN = re.compile(
    r"""\s*(?:(?P<sign>==|!=|<>|<=|>=|[=<>()\[\],])"""
    r"""|(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<word>[^\s()\[\],=!<>"']+))""",
    re.DOTALL,
)
_INT = re.compile(r"[+-]?[0-9]+")
_DOUBLE = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt].+)?")
_REFERENCE = re.compile(r"\$(user|request)\..+")
_KEYWORDS = {"AND", "OR", "NOT", "IN", "EXISTS", "IS", "NULL", "TO"}
_EQUAL = {"=", "=="}
_UNEQUAL = {"!=", "<>"}
_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_MAX_DEPTH = 64
_MAX_DIGITS = 40
# Twice what the largest valid filter has: a comma follows each of its values.
_MAX_TOKENS = 4 * f.MAX_VALUES
_TEXT_CONDITIONS: Mapping[str, type[f.Words | f.Phrase]] = {"WORDS": f.Words, "PHRASE": f.Phrase}
_CLOSING = {"[": "]", "(": ")"}


def parse_filter(text: str, path: str = "filter", references: bool = False) -> f.Filter:
    """Parses a filter in the language above, or JSON (see `filter_from_json`) if it starts with {.

    references: Whether values may be $user.NAME and $request.NAME, as in a policy.
    Raises: InvalidRequest: a syntax error; names the path, the column and the expected token.
    """
    if text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(
                f"the filter is not valid JSON: {error}; or write: kind = class AND year >= 2000",
                field=path,
            ) from error
        return filter_from_json(value, path)
    condition = _Parser(text, path, references).whole()
    f.check_filter(condition, path)
    return condition


def filter_from_json(value: object, path: str = "filter") -> f.Filter:
    """Reads a filter from the values that `json.loads` returns.

    {"all": [filter, …]}, {"any": [filter, …]}, {"not": filter}, or a condition on a field:
    {"field": "year", "gte": 2000, "lt": 2010}, with one of "equals", "in", "exists": true, or the
    bounds gte, gt, lte, lt. A time is {"$time": "2024-05-01T12:00:00Z"}.
    On title and text: {"phrase": "new york"}, or {"words": "new york"}, optionally with "share":
    0.5 and "similar": true.
    Raises: InvalidRequest: the filter has a different form; names the path.
    """
    condition = _from_json(value, path, _MAX_DEPTH)
    f.check_filter(condition, path)
    return condition


def filter_to_json(condition: f.Filter) -> dict[str, Any]:
    """Returns a filter as `filter_from_json` reads it."""
    match condition:
        case f.All(parts):
            return {"all": [filter_to_json(one) for one in parts]}
        case f.Any(parts):
            return {"any": [filter_to_json(one) for one in parts]}
        case f.Not(part):
            return {"not": filter_to_json(part)}
        case f.Equals(field, value):
            return {"field": field, "equals": _value_to_json(value)}
        case f.In(field, values):
            return {"field": field, "in": [_value_to_json(one) for one in values]}
        case f.Exists(field):
            return {"field": field, "exists": True}
        case f.Words(text, share, similar):
            return {"words": text, "share": share, "similar": similar}
        case f.Phrase(text):
            return {"phrase": text}
        case f.Range():
            bounds = {name: getattr(condition, name) for name in f.BOUNDS}
            found = {name: _value_to_json(one) for name, one in bounds.items() if one is not None}
            return {"field": condition.field, **found}


def _value_to_json(value: f.FilterValue) -> object:
    return {"$time": value.isoformat()} if isinstance(value, datetime) else value


class _Token(NamedTuple):
    """A token. kind: sign, quoted, word or end. text: As written, unquoted. at: Start offset."""

    kind: str
    text: str
    at: int

    def keyword(self) -> str:
        """Returns the keyword of a bare word, or an empty text."""
        upper = self.text.upper()
        return upper if self.kind == "word" and upper in _KEYWORDS else ""


class _Parser:
    """A recursive descent parser with one token of lookahead."""

    def __init__(self, text: str, path: str, references: bool) -> None:
        self._text = text
        self._references = references
        self._path = path
        self._tokens = self._cut()
        self._next = 0
        self._depth = 0

    def whole(self) -> f.Filter:
        condition = self._any()
        if self._peek().kind != "end":
            self._expected("AND, OR or the end")
        return condition

    def _any(self) -> f.Filter:
        self._descend()
        parts = [self._all()]
        while self._take("OR"):
            parts.append(self._all())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else f.Any(*parts)

    def _descend(self) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            allowed = f"at most {_MAX_DEPTH} nested parentheses and NOT are allowed; flatten it"
            self._fail(allowed, self._peek().at)

    def _all(self) -> f.Filter:
        parts = [self._unit()]
        while self._take("AND"):
            parts.append(self._unit())
        return parts[0] if len(parts) == 1 else f.All(*parts)

    def _unit(self) -> f.Filter:
        if self._take("NOT"):
            self._descend()
            part = f.Not(self._unit())
            self._depth -= 1
            return part
        if self._take("("):
            condition = self._any()
            if not self._take(")"):
                self._expected("AND, OR or )")
            return condition
        text = self._text_condition()
        return self._condition(self._field()) if text is None else text

    def _text_condition(self) -> f.TextCondition | None:
        kind = _TEXT_CONDITIONS.get(self._peek().text.upper())
        if kind is None or self._peek().kind != "word":
            return None
        text = self._tokens[self._next + 1]
        after = self._tokens[min(self._next + 2, len(self._tokens) - 1)]
        # An attribute may have this name: words "a" TO "b".
        if text.kind != "quoted" or after.keyword() == "TO":
            return None
        self._next += 2
        return kind(text.text)

    def _field(self) -> str:
        token = self._peek()
        reference = token.kind == "word" and _REFERENCE.fullmatch(token.text)
        if token.kind not in ("word", "quoted") or token.keyword() or reference:
            self._expected("an attribute, NOT or (")
        self._next += 1
        return token.text

    def _condition(self, field: str) -> f.Filter:
        token = self._peek()
        if token.kind == "sign" and token.text in _EQUAL | _UNEQUAL:
            self._next += 1
            equals = f.Equals(field, self._value())
            return f.Not(equals) if token.text in _UNEQUAL else equals
        if token.kind == "sign" and token.text in _BOUNDS:
            self._next += 1
            return f.Range(field, **{_BOUNDS[token.text]: self._value()})
        if self._take("IS"):
            negated = self._take("NOT")
            if not self._take("NULL"):
                self._expected("NULL" if negated else "NULL or NOT NULL")
            exists = f.Exists(field)
            return exists if negated else f.Not(exists)
        negated = self._take("NOT")
        if self._take("EXISTS"):
            return f.Not(f.Exists(field)) if negated else f.Exists(field)
        if self._take("IN"):
            values = self._values()
            several: f.Filter = f.In(field, values)
            if any(isinstance(one, f.Reference) for one in values):
                several = f.Any(*(f.Equals(field, one) for one in values))
            return f.Not(several) if negated else several
        if negated:
            self._expected("IN or EXISTS")
        if token.kind in ("word", "quoted") and not token.keyword():
            low = self._value()
            if not self._take("TO"):
                self._next -= 1
                self._expected_condition(field)
            return f.Range(field, gte=low, lte=self._value())
        self._expected_condition(field)

    def _values(self) -> tuple[f.FilterValue, ...]:
        closing = _CLOSING.get(self._peek().text if self._peek().kind == "sign" else "")
        if closing is None:
            self._expected("[ and values")
        self._next += 1
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        if not self._take(closing):
            self._expected(f"a comma or {closing}")
        return tuple(values)

    def _value(self) -> f.FilterValue:
        token = self._peek()
        if token.kind not in ("word", "quoted") or token.keyword():
            self._expected("a value")
        self._next += 1
        if token.kind == "quoted":
            return token.text
        if token.text.startswith("$"):
            if not self._references or not _REFERENCE.fullmatch(token.text):
                wanted = "$user.NAME or $request.NAME in a policy"
                self._fail(f"{token.text} is not {wanted}; quote texts", token.at)
            return f.Reference(token.text)
        if token.text.lower() in ("true", "false"):
            return token.text.lower() == "true"
        if _INT.fullmatch(token.text):
            if len(token.text) > _MAX_DIGITS:
                self._next -= 1
                self._fail(
                    f"the number has {len(token.text)} digits, {_MAX_DIGITS} are allowed; quote it",
                    token.at,
                )
            return int(token.text)
        if _DOUBLE.fullmatch(token.text):
            return float(token.text)
        if _TIME.fullmatch(token.text):
            try:
                return _time(token.text)
            except ValueError as error:
                self._next -= 1
                self._fail(f"{token.text} is not a time ({error}); quote texts", token.at)
        return token.text

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, expected: str) -> bool:
        """Consumes the next token if it is this sign or keyword; returns whether it was."""
        token = self._peek()
        found = token.keyword() == expected or (token.kind == "sign" and token.text == expected)
        self._next += found
        return found

    def _cut(self) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        end = len(self._text.rstrip())
        while at < end:
            match = _TOKEN.match(self._text, at)
            if match is None:
                start = at + len(self._text[at:]) - len(self._text[at:].lstrip())
                sign = self._text[start]
                if sign in "\"'":
                    self._fail(f"the quote {sign} is not closed", start)
                self._fail(f"{sign} is not an operator; did you mean !=?", start)
            kind = str(match.lastgroup)
            text = match[kind]
            if kind == "quoted":
                text = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
            if len(tokens) == _MAX_TOKENS:
                allowed = f"at most {_MAX_TOKENS:,} words and signs are allowed; split the request"
                self._fail(allowed, match.start(kind))
            tokens.append(_Token(kind, text, match.start(kind)))
            at = match.end()
        tokens.append(_Token("end", "", end))
        return tokens

    def _expected_condition(self, field: str) -> NoReturn:
        if field.upper() in _TEXT_CONDITIONS and self._peek().kind in ("word", "end"):
            self._expected(f'a text in quotes, such as {field.upper()} "new york",')
        self._expected("=, !=, <, <=, >, >=, IN, EXISTS, IS NULL or a TO b")

    def _expected(self, expectation: str) -> NoReturn:
        token = self._peek()
        found = "the end" if token.kind == "end" else f"{token.text!r}"
        self._fail(f"{expectation} is expected, found {found}", token.at)

    def _fail(self, problem: str, at: int) -> NoReturn:
        start = max(0, at - MAX_SHOWN // 2)
        line = self._text[start : start + MAX_SHOWN].replace("\n", " ")
        mark = " " * (at - start) + "^"
        raise InvalidRequest(
            f"the filter cannot be read at column {at + 1}: {problem}\n  {line}\n  {mark}",
            field=self._path,
        )


def _time(text: str) -> datetime:
    return in_utc(datetime.fromisoformat(text))


def _from_json(value: object, path: str, depth: int) -> f.Filter:
    if depth == 0:
        raise _malformed(path, "is nested too deeply; flatten it")
    if not isinstance(value, Mapping):
        raise _malformed(path, f"is {_shown(value)}; an object is needed")
    keys = set(value)
    for name, kind in (("all", f.All), ("any", f.Any)):
        if keys == {name}:
            parts = value[name]
            if not isinstance(parts, list):
                raise _malformed(f"{path}.{name}", "is not a list of filters")
            return kind(
                *(
                    _from_json(part, f"{path}.{name}[{at}]", depth - 1)
                    for at, part in enumerate(parts)
                )
            )
    if keys == {"not"}:
        return f.Not(_from_json(value["not"], f"{path}.not", depth - 1))
    if keys == {"phrase"}:
        return f.Phrase(_json_text(value["phrase"], f"{path}.phrase"))
    if "words" in keys <= {"words", "share", "similar"}:
        share, similar = value.get("share", 1.0), value.get("similar", False)
        if isinstance(share, bool) or not isinstance(share, float | int):
            raise _malformed(
                f"{path}.share", f"is {_shown(share)}; use a number above 0, at most 1"
            )
        if not isinstance(similar, bool):
            raise _malformed(f"{path}.similar", f"is {_shown(similar)}; use true or false")
        return f.Words(_json_text(value["words"], f"{path}.words"), float(share), similar)
    field = value.get("field")
    if isinstance(field, str):
        if keys == {"field", "equals"}:
            return f.Equals(field, _json_value(value["equals"], f"{path}.equals"))
        if keys == {"field", "in"} and isinstance(value["in"], list):
            values = (_json_value(v, f"{path}.in[{at}]") for at, v in enumerate(value["in"]))
            return f.In(field, tuple(values))
        if keys == {"field", "exists"} and isinstance(value["exists"], bool):
            return f.Exists(field) if value["exists"] else f.Not(f.Exists(field))
        if len(keys) > 1 and keys <= {"field", *f.BOUNDS}:
            return f.Range(
                field,
                **{name: _json_value(value[name], f"{path}.{name}") for name in keys - {"field"}},
            )
    raise _malformed(
        path,
        f"has the keys {', '.join(sorted(map(str, keys))) or '(none)'}; use all, any, not, words, "
        "phrase, or field with equals, in, exists or bounds (gte, gt, lte, lt)",
    )


def _json_text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise _malformed(path, f"is {_shown(value)}; use a text")
    return value


def _json_value(value: object, path: str) -> f.FilterValue:
    if isinstance(value, Mapping) and set(value) == {"$time"} and isinstance(value["$time"], str):
        try:
            return _time(value["$time"])
        except ValueError as error:
            raise _malformed(path, f"is not a time: {error}; use ISO 8601") from error
    if isinstance(value, str | bool | int | float):
        return value
    raise _malformed(path, f"is {_shown(value)}; a text, number, boolean or $time is needed")


def _shown(value: object) -> str:
    """Returns a value as JSON, or as Python shows it if it comes from a program and is no JSON."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return repr(value)


def _malformed(path: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{path} {problem}", field=path)
