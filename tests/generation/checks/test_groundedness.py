"""Tests that unsupported claims are found, and that paraphrases are accepted."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from generation.checks.groundedness import (
    WEAK_SUPPORT,
    GroundednessRules,
    best_passages,
    check_groundedness,
)
from generation.checks.quantities import Date, Quantity, extract_quantities
from generation.evidence.sources import Passage

LOOSE = GroundednessRules(floor=0.0)

READ = [
    ("3 minutes", {("3", "min")}),
    ("three-minute, 3 min", {("3", "min")}),
    ("3-5 hours", {("3", "h"), ("5", "h")}),
    ("3 to 5 h", {("3", "h"), ("5", "h")}),
    ("between 2 and 4 GB", {("2", "GB"), ("4", "GB")}),
    ("1,000 mg and 1 000 milligrams", {("1000", "mg")}),
    ("1'000.50", {("1000.5", "")}),
    ("1,5 kg or 1·5 kg", {("1.5", "kg")}),
    ("5% or 5 per cent", {("5", "%")}),
    ("½ or half or 1/2 or 0.50", {("0.5", "")}),
    ("20 °C, 20 degrees Celsius", {("20", "°C")}),
    ("-5 °C", {("-5", "°C")}),
    ("$3 million", {("3000000", "USD")}),
    ("3 million users", {("3000000", "")}),
    ("80 MB, 80 mb", {("80", "MB"), ("80", "")}),
    ("50 µs, 50 us", {("50", "µs")}),
    ("at 12:30", {("12:30", "")}),
    ("Python 3.11.2", {("3.11.2", "")}),
    ("one of them, one hour, twelve", {("1", "h"), ("12", "")}),
    ("B12, p53, utf-8, COVID-19, x86_64", set()),
    ("40mg/day", {("40", "mg")}),
    ("1e5", {("100000", "")}),
    ("1/0 and 1e999", {("1/0", ""), ("1", "")}),
]


@pytest.mark.parametrize(("text", "found"), READ)
def test_numbers_are_extracted_with_their_units(text: str, found: set[tuple[str, str]]) -> None:
    assert set(extract_quantities(text).quantities) == {Quantity(*one) for one in found}


DATED = [
    ("2024-03-03", Date(2024, 3, 3)),
    ("on March 3, 2024.", Date(2024, 3, 3)),
    ("3 March 2024", Date(2024, 3, 3)),
    ("the 3rd of March, 2024", Date(2024, 3, 3)),
    ("Mar. 3", Date(0, 3, 3)),
    ("May 2020", Date(2020, 5, 0)),
]


@pytest.mark.parametrize(("text", "date"), DATED)
def test_dates_are_extracted_in_every_form(text: str, date: Date) -> None:
    found = extract_quantities(text)
    assert list(found.dates) == [date]
    assert not found.quantities


@given(st.text(alphabet="0123456789.,:/-+eE½ %mMgk°C'\u00a0one", max_size=40))
def test_any_text_is_parsed(text: str) -> None:
    assert all(len(number) < 200 for number, _ in extract_quantities(text).quantities)


KETTLE = "The kettle boils water in 3 minutes. Never open the lid while it boils."
# Sentence, source, and the beginnings of its problems.
CASES = [
    ("The kettle boils water in 3 minutes.", KETTLE, ()),
    ("The kettle boils water in three min.", KETTLE, ()),
    ("The kettle boils water in 4 minutes.", KETTLE, ("number '4 minutes'",)),
    ("The kettle boils water in 3 hours.", KETTLE, ("unit of '3 hours'",)),
    ("The kettle needs 3.", KETTLE, ()),
    ("Open the lid while it boils.", KETTLE, ("negation in the source",)),
    ("You should never open the lid.", KETTLE, ()),
    ("The kettle does not boil water.", KETTLE, ("negation is not",)),
    ("The kettle boils no water.", "The kettle boils water.", ("negation is not",)),
    ("It cannot be opened.", "It can be opened.", ("negation is not",)),
    ("It isn't safe.", "It is unsafe and not safe.", ()),
    ("It is not only safe.", "It is safe.", ()),
    # The source negates something else, and says nothing of what is denied.
    ("It was never blue.", "It was never red.", ()),
    # One of two denied words is denied there, too; the other is affirmed.
    ("It is not blue and not red.", "It is not blue, and later it is red.", ()),
    ("It is captured.", "It is not captured. Pass x to capture it.", ("negation in the",)),
    ("Pass x to capture it.", "It is not captured. Pass x to capture it.", ()),
    ("The kettle of Bob boils.", "The ket\u00adtle of B\u200bob boils.", ()),
    ("Mice lacking it died.", "Mice deficient in it died.", ()),
    ("It works without power.", "It works with power.", ("negation is not",)),
    ("The drug increases pressure.", "The drug lowers pressure.", ("direction",)),
    ("The drug raises pressure.", "The drug increases pressure.", ()),
    ("It was sold in 2019.", "It was sold on March 3, 2019.", ()),
    ("It was sold on 3 March 2019.", "It was sold on 2019-03-03.", ()),
    ("It was sold on 4 March 2019.", "It was sold on 2019-03-03.", ("date",)),
    ("It was sold in March 2018.", "It was sold on 2019-03-03.", ("date",)),
    ("It holds 1,000 ml.", "It holds 1000 mL.", ()),
    ("It costs 5 percent.", "It costs 5% of that.", ()),
    ("It takes 3 min.", "It takes 3 or, at most, 4 minutes.", ()),
    ("The man met Alice.", "The man met a friend.", ("name 'Alice'",)),
    ("The man met Alice's friend.", "The man met the friend of Alice.", ()),
    ("Alice met a man.", "She met a man.", ()),  # the first word of a sentence is not a name
    ("DNA was found.", "Something was found.", ("name 'DNA'",)),
    ("DNAs were found.", "The DNA was found.", ()),
    ("It is about Batches.", "It is about a batch.", ()),
    ("It is about Batches.", "It is about a bath.", ("name 'Batches'",)),
    ("Use subprocess.run() here.", "Use subprocess.run here.", ()),
    ("Use subprocess.popen here.", "Use subprocess.run here.", ("name 'subprocess.popen'",)),
    ("Call os.walk there.", "In os, call walk() there.", ()),
    ("Set max_size there.", "Set the size there.", ("name 'max_size'",)),
    ("It has p53 in it.", "It has p63 in it.", ("name 'p53'",)),
]


@pytest.mark.parametrize(("sentence", "source", "problems"), CASES)
def test_rules_find_wrong_details(sentence: str, source: str, problems: tuple[str, ...]) -> None:
    found = check_groundedness(sentence, source, rules=LOOSE)
    assert len(found.problems) == len(problems)
    for problem, start in zip(found.problems, problems, strict=True):
        assert problem.startswith(start)
    assert found.supported is not bool(problems)


def test_names_may_occur_in_the_title_or_the_question() -> None:
    said = "It is called Alice there."
    assert not check_groundedness(said, "It is called so there.", rules=LOOSE).supported
    assert check_groundedness(said, "It is called so there.", title="Alice", rules=LOOSE).supported
    assert check_groundedness(
        said, "It is called so there.", question="Who is Alice?", rules=LOOSE
    ).supported
    assert check_groundedness(
        said, "It is called so there.", rules=GroundednessRules(0.0, names=False)
    ).supported


def test_the_score_is_the_mean_of_stems_and_of_runs_of_characters() -> None:
    # Two of kettle, boil, milk; three of 13 runs in 17 characters: "kettl", "ettle" and " boil".
    found = check_groundedness("Kettles boil milk", "the kettle boils water", rules=LOOSE)
    assert found.score == pytest.approx((2 / 3 + 3 / 13) / 2)
    assert check_groundedness("Of the", "Of the", rules=LOOSE).score == 1.0
    assert check_groundedness(KETTLE, KETTLE).score == 1.0
    found = check_groundedness("A fox met a crow.", KETTLE)
    assert found.problems == (WEAK_SUPPORT,)


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_score_is_a_share_and_a_text_supports_itself(text: str, other: str) -> None:
    assert 0.0 <= check_groundedness(text, other).score <= 1.0
    assert check_groundedness(text, text, rules=LOOSE).supported


def passages(*texts: str) -> list[Passage]:
    return [Passage(0, 0, at * 100, at * 100 + len(text), text) for at, text in enumerate(texts)]


TALE = passages(
    "Once a fox met a crow.",
    "The crow held some cheese.",
    "The kettle boils water in 3 minutes.",
    "Descale it with vinegar every month.",
    "Never open the lid while it boils.",
)


@pytest.mark.parametrize(
    ("sentence", "chosen"),
    [
        ("The kettle boils water in 3 minutes.", [2]),
        ("The crow held cheese.", [1]),
        ("A fox met a crow that held some cheese.", [0, 1]),
        ("The kettle boils water in 3 minutes and is descaled with vinegar every month.", [2, 3]),
        ("A fox met a crow that held cheese while the kettle boils water.", [0, 1, 2]),
        ("Open the lid while it boils.", [4]),  # and not one without the contradiction
    ],
)
def test_a_citation_is_the_shortest_supporting_run(sentence: str, chosen: list[int]) -> None:
    assert best_passages(sentence, TALE) == [TALE[at] for at in chosen]
    assert best_passages(sentence, TALE[2:3]) == TALE[2:3]


def test_a_run_with_a_wrong_number_loses_against_other_words() -> None:
    wrong, right = passages(
        "The kettle boils water in 5 minutes.", "Kettles boil the water in 3 minutes."
    )
    said = "The kettle boils water in 3 minutes."
    assert check_groundedness(said, wrong.text).score > check_groundedness(said, right.text).score
    # Far apart, so that no run contains both.
    assert best_passages(said, [wrong, *TALE[:2], TALE[3], right]) == [right]


def test_a_contradicting_run_is_not_replaced_by_a_silent_one() -> None:
    deny, loose = passages("Never open the lid while it boils.", "The lid is open; milk boils.")
    said = "Open the lid while it boils."
    assert (
        check_groundedness(said, loose.text).supported
        and not check_groundedness(said, deny.text).supported
    )
    # Far apart, so that no run contains both.
    apart = [deny, *TALE[:2], loose]
    assert best_passages(said, apart) == [deny]
