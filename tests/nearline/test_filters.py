"""Filters: validation, and conversion to protobuf and back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from nearline import filters as f
from nearline.errors import InvalidRequest
from nearline.v1 import types_pb2
from nearline.wire.filters import filter_from_proto, filter_to_proto

times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)).map(
    lambda time: time.replace(fold=0)
)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
kinds = st.sampled_from([st.text(), st.booleans(), times, numbers])
names = st.text(min_size=1, max_size=5)
ranges = st.sampled_from([times, numbers]).flatmap(
    lambda values: st.dictionaries(st.sampled_from(f.BOUNDS), values, min_size=1)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9).map(lambda text: f"a{text}")
leaves = st.one_of(
    st.builds(f.Equals, names, kinds.flatmap(lambda values: values)),
    st.builds(f.In, names, kinds.flatmap(lambda v: st.lists(v, min_size=1).map(tuple))),
    st.tuples(names, ranges).map(lambda pair: f.Range(pair[0], **pair[1])),
    st.builds(f.Exists, names),
    st.builds(f.Words, texts, st.floats(0.01, 1.0), st.booleans()),
    st.builds(f.Phrase, texts),
)
filters = st.recursive(
    leaves,
    lambda part: st.one_of(
        st.lists(part, max_size=4).map(lambda parts: f.All(*parts)),
        st.lists(part, max_size=4).map(lambda parts: f.Any(*parts)),
        part.map(f.Not),
    ),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(filters)
def test_a_filter_survives_the_wire(condition: f.Filter) -> None:
    sent = filter_to_proto(condition).SerializeToString()
    back = filter_from_proto(types_pb2.Filter.FromString(sent))
    # By representation: 1, 1.0 and True are equal in Python.
    assert repr(back) == repr(condition)


@pytest.mark.parametrize(
    ("condition", "path", "text"),
    [
        (f.All(f.Exists("a"), f.Range("b")), "options.filter.all[1].range", "no bound"),
        (f.In("a", ()), "options.filter.in", "has 0 values; 1..65536"),
        (f.In("a", ("x", 1)), "options.filter.in", "mixes values of kind int and string"),
        (f.In("a", (True, 1)), "options.filter.in", "kind bool and int"),
        (f.Range("a", gte="x"), "options.filter.range.gte", "ranges need numbers or times"),
        (
            f.Range("a", gte=1, lt=datetime(2000, 1, 1, tzinfo=UTC)),
            "options.filter.range",
            "int and time",
        ),
        (f.Not(f.Equals("", 1)), "options.filter.not.equals.field", "name an attribute"),
        (f.Words(" "), "options.filter.words.text", "is empty; name words"),
        (f.Words("a", 0.0), "options.filter.words.share", "above 0 and at most 1"),
        (f.Not(f.Words("a", 1.5)), "options.filter.not.words.share", "is 1.5"),
        (
            f.Phrase("a" * 1_025),
            "options.filter.phrase.text",
            "1,025 characters, 1,024 are allowed",
        ),
        (f.Phrase("\ud800"), "options.filter.phrase.text", "not valid Unicode"),
        (f.Equals("a", float("nan")), "options.filter.equals.value", "finite"),
        (f.Equals("a", 1 << 63), "options.filter.equals.value", r"2\^63"),
        (f.Equals("a", datetime(2000, 1, 1)), "options.filter.equals.value", "zone"),
        (f.Any(*[f.Exists("a")] * 257), "options.filter.any", "257 parts, 256"),
        (f.Equals("a", None), "options.filter.equals.value", "NoneType"),  # type: ignore[arg-type]
        ({"a": 1}, "options.filter", "type dict"),
    ],
)
def test_an_invalid_filter_is_refused_with_its_path(
    condition: f.Filter, path: str, text: str
) -> None:
    with pytest.raises(InvalidRequest, match=text) as caught:
        filter_to_proto(condition)
    assert caught.value.field == path


def test_nesting_has_a_limit() -> None:
    condition: f.Filter = f.Exists("a")
    for _ in range(15):
        condition = f.Not(condition)
    filter_from_proto(filter_to_proto(condition))
    with pytest.raises(InvalidRequest, match="more than 16 deep"):
        f.check_filter(f.Not(condition))


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (types_pb2.Filter(), "options.filter"),
        (
            types_pb2.Filter(all=types_pb2.FilterList(filters=[types_pb2.Filter()])),
            "options.filter.all[0]",
        ),
        (
            types_pb2.Filter(equals=types_pb2.FieldEquals(field="a")),
            "options.filter.equals.value",
        ),
        (
            types_pb2.Filter(
                equals=types_pb2.FieldEquals(
                    field="a", value=types_pb2.Value(list_value=types_pb2.ValueList())
                )
            ),
            "options.filter.equals.value",
        ),
        (
            types_pb2.Filter(range=types_pb2.FieldRange(field="a", gte=types_pb2.Value())),
            "options.filter.range.gte",
        ),
    ],
)
def test_an_empty_message_is_refused_with_its_path(message: types_pb2.Filter, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        filter_from_proto(message)
    assert caught.value.field == path


def test_a_string_instead_of_values_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"has a string for values; write \('acme',\)"):
        f.check_filter(f.In("brand", "acme"))  # type: ignore[arg-type]


def test_conditions_and_values_are_counted_over_the_whole_filter() -> None:
    wide = f.Any(*[f.All(*[f.Exists("a")] * 127)] * 7, *[f.Exists("a")] * 127)
    f.check_filter(wide)
    with pytest.raises(InvalidRequest, match="more than 1,024 operators and conditions"):
        f.check_filter(f.Not(wide))
    half = f.In("a", tuple(range(32_768)))
    f.check_filter(f.Any(half, half))
    with pytest.raises(InvalidRequest, match="65,537 values in all, 65,536 are allowed"):
        f.check_filter(f.Any(half, half, f.In("a", (1,))))


EXISTS, IN, NOT = f.Exists("a"), f.In("a", (1,)), f.Not(f.Exists("a"))


@pytest.mark.parametrize(
    "largest",
    [
        f.Any(*[f.All(*[EXISTS] * 127)] * 7, *[EXISTS] * 127),
        f.Any(*[f.All(*[IN] * 127)] * 7, *[IN] * 127),
        f.Any(*[f.Any(*[NOT] * 127)] * 4, EXISTS, EXISTS, EXISTS),
    ],
    ids=["exists", "in", "not"],
)
def test_a_message_may_have_as_many_conditions_as_a_filter(
    largest: f.Filter, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = filter_to_proto(largest)
    assert filter_from_proto(message) == largest
    one_more = types_pb2.Filter()
    getattr(one_more, "not").CopyFrom(message)
    monkeypatch.setattr("nearline.wire.filters._read", None)
    with pytest.raises(InvalidRequest, match="more than 1,024 operators and conditions"):
        filter_from_proto(one_more)


def one_of(value: types_pb2.Value, count: int) -> types_pb2.Filter:
    message = types_pb2.Filter()
    getattr(message, "in").field = "a"
    getattr(message, "in").values.extend([value] * count)
    return message


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            types_pb2.Filter(
                any=types_pb2.FilterList(
                    filters=[types_pb2.Filter(exists=types_pb2.FieldExists(field="a"))] * 16_384
                )
            ),
            "more than 1,024",
        ),
        (
            one_of(types_pb2.Value(string_value="x" * 64), 65_536),
            "bytes, 4,194,304 are allowed",
        ),
        (
            one_of(types_pb2.Value(int_value=1), 65_537),
            "65,537 values in all",
        ),
    ],
)
def test_a_message_that_is_too_large_is_refused_before_it_is_read(
    message: types_pb2.Filter, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearline.wire.filters._read", None)
    with pytest.raises(InvalidRequest, match=text):
        filter_from_proto(message)
