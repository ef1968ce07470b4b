"""The parser of text and JSON filters."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings

from nearline import filters as f
from nearline.errors import InvalidRequest
from nearline.filter_text import filter_from_json, parse_filter
from tests.nearline.test_filters import filters

A, B, C = (f.Equals(name, 1) for name in "abc")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a = 1", A),
        ("a==1", A),
        ("a = 1 AND b = 1 OR c = 1", f.Any(f.All(A, B), C)),
        ("a = 1 and (b = 1 or c = 1)", f.All(A, f.Any(B, C))),
        ("NOT a = 1 AND b = 1", f.All(f.Not(A), B)),
        ("NOT (a = 1 AND b = 1)", f.Not(f.All(A, B))),
        ("kind != class", f.Not(f.Equals("kind", "class"))),
        ("tags IN [\"a\", 'b', c]", f.In("tags", ("a", "b", "c"))),
        ("year NOT IN (1, 2)", f.Not(f.In("year", (1, 2)))),
        ("year >= 2000 AND year < 2e3", f.All(f.Range("year", gte=2000), f.Range("year", lt=2e3))),
        ("price -1.5 TO 2", f.Range("price", gte=-1.5, lte=2)),
        ("author EXISTS", f.Exists("author")),
        ("author NOT EXISTS", f.Not(f.Exists("author"))),
        ("author IS NULL", f.Not(f.Exists("author"))),
        ("author is not null", f.Exists("author")),
        ("ok = true", f.Equals("ok", True)),
        ("ok = 'true'", f.Equals("ok", "true")),
        ('"my field" = "say \\"hi\\" \\\\"', f.Equals("my field", 'say "hi" \\')),
        ("nested.deep_er-x = ü", f.Equals("nested.deep_er-x", "ü")),
        ("made > 2024-05-01", f.Range("made", gt=datetime(2024, 5, 1, tzinfo=UTC))),
        (
            "made <= 2024-05-01T12:00:00+02:00",
            f.Range("made", lte=datetime(2024, 5, 1, 10, tzinfo=UTC)),
        ),
        ('"in" = "AND"', f.Equals("in", "AND")),
        ('{"field": "a", "equals": 1}', A),
    ],
)
def test_a_text_filter_is_parsed(text: str, wanted: f.Filter) -> None:
    # By representation: 1, 1.0 and True are equal in Python.
    assert repr(parse_filter(text)) == repr(wanted)


@pytest.mark.parametrize(
    ("text", "column", "problem"),
    [
        ("", 1, "an attribute, NOT or ( is expected, found the end"),
        ("year >=", 8, "a value is expected, found the end"),
        ("year >= AND kind = x", 9, "a value is expected, found 'AND'"),
        ("year 2000", 6, "a TO b is expected, found '2000'"),
        ("(a = 1", 7, "AND, OR or ) is expected, found the end"),
        (
            "PHRASE star",
            8,
            "a text in quotes, such as PHRASE \"new york\", is expected, found 'star'",
        ),
        ("words", 6, 'a text in quotes, such as WORDS "new york", is expected, found the end'),
        ("phrase 1", 8, "a text in quotes"),
        ("a = 1 b = 2", 7, "AND, OR or the end is expected, found 'b'"),
        ("a IN 1", 6, "[ and values is expected, found '1'"),
        ("a IN []", 7, "a value is expected, found ']'"),
        ("a IN [1, 2", 11, "a comma or ] is expected"),
        ("a IS 1", 6, "NULL or NOT NULL is expected"),
        ('a = "x', 5, 'the quote " is not closed'),
        ("a ! 1", 3, "! is not an operator; did you mean !=?"),
        ("made > 2024-13-01", 8, "2024-13-01 is not a time"),
        ("made > 9999-12-31T23:59:59-23:59", 8, "9999-12-31T23:59:59-23:59 is not a time"),
        ("(" * 65 + "a = 1", 65, ": at most 64 nested parentheses and NOT are allowed; flatten it"),
    ],
)
def test_an_error_points_at_its_column(text: str, column: int, problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_filter(text)
    first, shown, mark = caught.value.message.split("\n")
    assert f"at column {column}: " in first and problem in first
    assert shown == f"  {text}" and mark == "  " + " " * (column - 1) + "^"


def test_an_error_shows_only_the_part_around_its_column() -> None:
    text = "a = 1 OR " + "NOT " * 8_000 + "a = 1"
    with pytest.raises(InvalidRequest, match="at most 64 nested") as caught:
        parse_filter(text)
    first, shown, mark = caught.value.message.split("\n")
    assert "at column 266: " in first
    assert 100 < len(shown) <= 202 and shown[2:] in text
    assert shown[len(mark) - 1 :].startswith("NOT ")


def test_a_filter_with_the_most_values_is_parsed_and_a_longer_text_is_not_read_to_its_end() -> None:
    most = ["v"] * f.MAX_VALUES
    assert parse_filter(f"a IN [{', '.join(most)}]") == f.In("a", tuple(most))
    # The unclosed quote at the end is never reached.
    with pytest.raises(InvalidRequest, match="at most 262,144 words and signs are allowed; split"):
        parse_filter("= " * 300_000 + '"')


def test_a_parsed_filter_is_validated() -> None:
    with pytest.raises(InvalidRequest, match=r"filter.range.gte is a string"):
        parse_filter("a >= x")


def written(filter: f.Filter) -> str:
    match filter:
        case f.All(parts) | f.Any(parts):
            word = " AND " if isinstance(filter, f.All) else " OR "
            return f"({word.join(map(written, parts))})"
        case f.Not(part):
            return f"NOT {written(part)}"
        case f.Exists(field):
            return f"{quoted(field)} EXISTS"
        case f.Equals(field, value):
            return f"{quoted(field)} = {shown(value)}"
        case f.In(field, values):
            return f"{quoted(field)} IN [{', '.join(map(shown, values))}]"
        case f.Range(field):
            signs = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}
            bounds = [(sign, getattr(filter, name)) for name, sign in signs.items()]
            ranges = [f"{quoted(field)} {s} {shown(v)}" for s, v in bounds if v is not None]
            return f"({' AND '.join(ranges)})"
        case f.Words(text):
            return f"WORDS {quoted(text)}"
        case f.Phrase(text):
            return f"phrase {quoted(text)}"
    raise AssertionError(filter)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def shown(value: f.FilterValue) -> str:
    if isinstance(value, str):
        return quoted(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)


def plain(filter: f.Filter) -> f.Filter | None:
    """Formats a filter like the parser: bounds separated, no lists of one; None if impossible."""
    match filter:
        case f.All(parts) | f.Any(parts):
            plains = [plain(part) for part in parts]
            if not plains or None in plains:
                return None
            return plains[0] if len(plains) == 1 else type(filter)(*plains)  # type: ignore[arg-type]
        case f.Not(part):
            inner = plain(part)
            return None if inner is None else f.Not(inner)
        case f.Range(field):
            bounds = {n: v for n in f.BOUNDS if (v := getattr(filter, n)) is not None}
            ranges = [f.Range(field, **{name: value}) for name, value in bounds.items()]
            return ranges[0] if len(ranges) == 1 else f.All(*ranges)
        case f.Words(text):
            # The others are for programs.
            return f.Words(text)
    return filter


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(filters)
def test_parsing_reverses_formatting(filter: f.Filter) -> None:
    if (wanted := plain(filter)) is not None:
        assert repr(parse_filter(written(wanted))) == repr(wanted)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"all": [{"field": "a", "equals": 1}]}, f.All(A)),
        ({"any": []}, f.Any()),
        ({"not": {"field": "a", "exists": False}}, f.Not(f.Not(f.Exists("a")))),
        ({"field": "a", "in": ["x", "y"]}, f.In("a", ("x", "y"))),
        ({"field": "a", "gte": 1, "lt": 2.5}, f.Range("a", gte=1, lt=2.5)),
        (
            {"field": "a", "gt": {"$time": "2024-05-01T12:00:00Z"}},
            f.Range("a", gt=datetime(2024, 5, 1, 12, tzinfo=UTC)),
        ),
        ({"phrase": "new york"}, f.Phrase("new york")),
        ({"not": {"words": "a b"}}, f.Not(f.Words("a b"))),
        ({"words": "a b", "share": 0.5, "similar": True}, f.Words("a b", 0.5, similar=True)),
    ],
)
def test_a_filter_is_read_from_json(value: object, wanted: f.Filter) -> None:
    assert filter_from_json(value) == wanted
    assert parse_filter(json.dumps(value)) == wanted


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([], "filter"),
        ({"all": [{"field": "a", "equals": 1}, {}]}, "filter.all[1]"),
        ({"all": {}}, "filter.all"),
        ({"field": "a"}, "filter"),
        ({"words": "a", "phrase": "b"}, "filter"),
        ({"words": "a", "share": 2}, "filter.words.share"),
        ({"field": "a", "equals": 1, "gt": 2}, "filter"),
        ({"not": {"field": "a", "equals": None}}, "filter.not.equals"),
        ({"field": "a", "in": [1, {}]}, "filter.in[1]"),
        ({"field": "a", "in": []}, "filter.in"),
        ({"phrase": 5}, "filter.phrase"),
        ({"words": ["a"]}, "filter.words"),
        ({"words": "a", "share": "half"}, "filter.share"),
        ({"words": "a", "share": True}, "filter.share"),
        ({"words": "a", "similar": 1}, "filter.similar"),
        ({"field": "a", "lt": {"$time": "soon"}}, "filter.lt"),
    ],
)
def test_invalid_json_filters_are_refused_with_their_path(value: object, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        filter_from_json(value)
    assert caught.value.field == path


@pytest.mark.parametrize("name", ["all", "any", "not"])
def test_json_that_is_nested_too_deeply_is_refused(name: str) -> None:
    value: object = {"field": "a", "equals": 1}
    # Deeper than Python can call itself.
    for _ in range(5_000):
        value = {name: value} if name == "not" else {name: [value]}
    with pytest.raises(InvalidRequest, match="is nested too deeply; flatten it"):
        filter_from_json(value)


def test_invalid_json_suggests_the_text_form() -> None:
    with pytest.raises(InvalidRequest, match=r"is not valid JSON: .*kind = class"):
        parse_filter("{kind")
