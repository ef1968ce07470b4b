"""Tests that sentences pass only if their sources support them, with exact citations."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from generation.checks.draft_parser import DraftParser, DraftSentence
from generation.checks.markers import NOT_ANSWERED
from generation.checks.sentence_verifier import NO_SOURCE, SentenceVerifier, VerifiedSentence
from generation.evidence.sources import group_sources
from generation.writers.prompt import pack_prompt
from nearline.contract import Hit

KETTLE = (
    "The kettle boils water in 3 minutes. Descale it with vinegar every month. "
    "See https://docs.org/kettle for more. Never open the lid while it boils."
)
CODE = "Read sys.argv like this:\nprint(argv[1], sep='')\nIt prints the first argument."


def hit(id: str, text: str, score: float, title: str) -> Hit:
    return Hit(id=id, score=score, chunk=0, start=7, end=7 + len(text), title=title, text=text)


SOURCES = group_sources(
    [hit("k", KETTLE, 0.9, "Kettle manual"), hit("c", CODE, 0.5, "Arguments")], 5
)
PACKED = pack_prompt("How does the kettle work?", SOURCES, [], 4000, "0" * 16)


def verifier(mark: bool = False) -> SentenceVerifier:
    return SentenceVerifier(PACKED.shown, SOURCES, "How does the kettle work?", mark=mark)


def run(answer: str, mark: bool = False) -> tuple[list[VerifiedSentence], SentenceVerifier]:
    drafts, one = DraftParser(len(PACKED.shown)), verifier(mark)
    found = [one.verify(draft) for draft in drafts.feed(answer) + drafts.end()]
    return [each for each in found if each is not None], one


def cited(found: VerifiedSentence) -> list[str]:
    return [SOURCES[span.source].text(span) for span in found.spans]


def test_a_supported_sentence_cites_the_supporting_sentences() -> None:
    found, one = run("Water boils in 3 minutes [1]. Descale it every month. [1]")
    assert [each.text for each in found] == [
        "Water boils in 3 minutes.",
        " Descale it every month.",
    ]
    assert [cited(each) for each in found] == [
        ["The kettle boils water in 3 minutes."],
        ["Descale it with vinegar every month."],
    ]
    assert [span.start for span in found[0].spans] == [7]
    assert all(each.supported and 0 < each.support[0] <= 1 for each in found)
    assert (one.dropped_sentences, one.dropped_markers, one.declined) == (0, 0, False)


@pytest.mark.parametrize(
    ("marker", "dropped"),
    [
        ("&#91;3&#93;", 1),
        ("&lsqb;3&rsqb;", 1),
        ("[\u200b3]", 1),
        ("[&#51;]", 1),
        ("&#91;1&#93;", 0),
    ],
)
def test_a_disguised_marker_is_recognised(marker: str, dropped: int) -> None:
    # The source has a 3, so that no rule about numbers rejects the sentence.
    (found,), one = run(f"The kettle boils water in 3 minutes {marker} [1].")
    assert found.text == "The kettle boils water in 3 minutes."
    assert cited(found) == ["The kettle boils water in 3 minutes."]
    assert one.dropped_markers == dropped


# Answer, problem under `mark`, and dropped markers.
WRONG = [
    ("The kettle boils water in 4 minutes [1].", "number '4 minutes' is not in the source", 0),
    ("Open the lid while it boils [1].", "negation in the source is left out", 0),
    ("Water boils in 3 minutes.", NO_SOURCE, 0),
    ("Water boils in 3 minutes [9].", NO_SOURCE, 1),
    ("Water boils in 3 minutes [0].", NO_SOURCE, 1),
    ("Water boils in 3 minutes[9].", NO_SOURCE, 1),
    ("Water boils in 3 minutes [2].", "number '3 minutes' is not in the source", 0),
    ("Yes.", NO_SOURCE, 0),
]


@pytest.mark.parametrize(("answer", "problem", "dropped"), WRONG)
def test_unsupported_sentences_are_dropped_or_marked(
    answer: str, problem: str, dropped: int
) -> None:
    found, one = run(answer)
    assert (found, one.dropped_sentences, one.dropped_markers) == ([], 1, dropped)
    (marked,), one = run(answer, mark=True)
    assert problem in marked.problems
    assert (one.dropped_sentences, one.dropped_markers) == (0, dropped)
    assert "[" not in marked.text


def test_useless_markers_are_dropped_and_useful_ones_are_combined() -> None:
    (found,), one = run("Water boils in 3 minutes [2][1].")
    assert (cited(found), one.dropped_markers) == (["The kettle boils water in 3 minutes."], 1)
    (found,), one = run("The kettle boils water in 3 minutes and argv prints its argument [1, 2].")
    assert [span.source for span in found.spans] == [0, 1]


def test_a_bracket_after_a_word_is_code_only_if_it_is_in_the_evidence() -> None:
    (found,), _ = run("It prints the first argument, argv[1] [2].")
    assert found.text == "It prints the first argument, argv[1]."
    (found,), _ = run("The kettle boils water in 3 minutes[1].")
    assert (found.text, len(found.spans)) == ("The kettle boils water in 3 minutes.", 1)


def test_a_lead_in_is_sent_with_the_text_after_it() -> None:
    found, one = run(
        "# The kettle\n\nDo this [1]:\n- Descale it with vinegar every month.\n- Sing to it.\n"
        "- Never open the lid while it boils."
    )
    assert [each.text for each in found] == [
        "# The kettle\n\nDo this:\n- Descale it with vinegar every month.",
        "\n- Never open the lid while it boils.",
    ]
    assert [len(each.spans) for each in found] == [1, 1]
    assert one.dropped_sentences == 1
    assert run("Do this:\n- Sing to it [1].")[0] == []
    found, _ = run("# All\n\nDo this:\n- Sing to it.\n\nWater boils in 3 minutes [1].")
    assert [each.text for each in found] == ["# All\n\nWater boils in 3 minutes."]
    found, _ = run("It takes 9 hours. In short:\nWater boils in 3 minutes [1].")
    assert [each.text for each in found] == [" In short:\nWater boils in 3 minutes."]
    # With a number it is a statement.
    assert run("It takes 3 minutes:\n")[1].dropped_sentences == 1


def test_a_table_keeps_its_form() -> None:
    found, one = run(
        "Care [1]:\n\n| what | how |\n|---|---|\n| Descale it | with vinegar every month |\n"
        "| Polish it | with wax every year |\n| The kettle boils water | in 3 minutes [1] |\n"
    )
    assert "".join(each.text for each in found) == (
        "Care:\n\n| what | how |\n|---|---|\n| Descale it | with vinegar every month |\n"
        "| The kettle boils water | in 3 minutes |"
    )
    assert one.dropped_sentences == 1


def test_code_uses_the_sources_of_the_words_before_it() -> None:
    answer = "It prints the first argument [2].\n```\nprint(argv[1], sep='')\n```\n"
    found, _ = run(answer)
    assert "".join(each.text for each in found) == (
        "It prints the first argument.\n```\nprint(argv[1], sep='')\n```"
    )
    assert [span.source for span in found[1].spans] == [1]
    found, one = run("It prints the first argument [2].\n```\nos.remove_all('/')\n```")
    assert (len(found), one.dropped_sentences) == (1, 1)


def test_links_are_kept_only_if_they_are_in_the_evidence() -> None:
    found, one = run("See https://docs.org/kettle for more [1]. See http://evil.com for more [1].")
    assert [each.text for each in found] == [
        "See https://docs.org/kettle for more.",
        " See (link removed) for more.",
    ]
    assert one.removed_links == 1


@pytest.mark.parametrize("form", ["{}", "{}.", "**{}**", " {} [1]"])
def test_a_model_may_say_that_the_passages_do_not_answer(form: str) -> None:
    found, one = run(form.format(NOT_ANSWERED))
    assert (found, one.declined, one.dropped_sentences) == ([], True, 0)


@settings(deadline=None)
@given(
    st.lists(st.text(max_size=30), max_size=4),
    st.lists(st.integers(1, 2), max_size=2, unique=True),
    st.booleans(),
)
def test_spans_always_belong_to_named_sources(
    words: list[str], markers: list[int], mark: bool
) -> None:
    one = verifier(mark)
    found = one.verify(DraftSentence("", " ".join(["Water", *words]), tuple(markers), 0))
    if found is None:
        return
    assert found.supported or mark
    assert len(found.spans) == len(found.support) <= len(markers)
    for span in found.spans:
        shown = [each for each in PACKED.shown if each.source == span.source]
        assert any(each.start <= span.start < span.end <= each.end for each in shown)
        assert SOURCES[span.source].text(span) in KETTLE + CODE


@pytest.mark.parametrize(
    ("lead_in", "sent"),
    [
        ("# The kettle\n", True),
        ("Steps to descale the kettle:\n", True),
        ("In short:\n", True),
        ("# Your bank wants your password\n", False),
        ("Kettles cure cancer and gout:\n\n", False),
    ],
)
def test_a_lead_in_uses_the_words_of_the_evidence(lead_in: str, sent: bool) -> None:
    found, one = run(f"{lead_in}Descale it with vinegar every month [1].")
    text = "".join(each.text for each in found).strip()
    assert text == f"{lead_in if sent else ''}Descale it with vinegar every month.".strip()
    assert one.dropped_sentences == (not sent)


def test_repeated_parts_of_the_prompt_are_removed() -> None:
    said = "<<passage 1 0ffb12>>[/INST] Descale it with vinegar every month [1]. <<end of passage 1"
    found, _ = run(said)
    assert [each.text.strip() for each in found] == ["Descale it with vinegar every month."]
