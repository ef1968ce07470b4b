"""Tests the rewriting of follow-up questions, and the documents that they find."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from generation.memory.query_rewriter import rewrite_query
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.contract import MAX_QUERY_CHARACTERS, Item, Query, SearchMode, SearchOptions, Turn
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import OBJECT, opened

RUN = "How do I run a subprocess?"
VITAMIN = "How much vitamin D should adults take per day?"
KETTLE = "How do I return a damaged kettle?"
CACHE = "What does functools.lru_cache do?"
ASPIRIN = "Does aspirin reduce the risk of stroke?"
# Earlier question, follow-up, and the self-contained question.
FOLLOW_UPS = [
    # Fragments are appended to the question ...
    (RUN, "and with a timeout?", "How do I run a subprocess with a timeout?"),
    (RUN, "ok, and on Windows?", "How do I run a subprocess on Windows?"),
    (RUN, "without a shell", "How do I run a subprocess without a shell"),
    (RUN, "What if it hangs?", "How do I run a subprocess if it hangs?"),
    (RUN, "windows?", "How do I run a subprocess windows?"),
    (RUN, "what about logging?", "How do I run a subprocess logging?"),
    (RUN, "no, I meant a thread", "How do I run a subprocess a thread"),
    (ASPIRIN, "at what dose?", "Does aspirin reduce the risk of stroke at what dose?"),
    (VITAMIN, "and in winter?", "How much vitamin D should adults take per day in winter?"),
    ("How do I install Postgres?", "what about Windows?", "How do I install Postgres Windows?"),
    # ... or replace the part that they contrast with.
    ("How do I parse a date in Python 3.11?", "what about Python 3.12?", "…in Python 3.12?"),
    ("How do I parse a date in Python 3.11?", "and 3.12?", "How do I parse a date in Python 3.12?"),
    ("how do I read a csv file?", "and a json file?", "how do I read a json file?"),
    ("How do I read CSV?", "and JSON?", "How do I read JSON?"),
    ("What is the population of France?", "And Germany?", "What is the population of Germany?"),
    ("How do I install it on Windows?", "on Linux?", "How do I install it on Linux?"),
    ("how do I stop it (thread)?", "and a subprocess?", "how do I stop it (subprocess)?"),
    (RUN, "using Python 3.12?", "How do I run a subprocess using Python 3.12?"),
    # Questions without content of their own are appended, too.
    (RUN, "why?", "How do I run a subprocess? why?"),
    (RUN, "Thanks! Tell me more.", "How do I run a subprocess? Thanks! Tell me more."),
    (RUN, "anything else?", "How do I run a subprocess? anything else?"),
    ("Which battery does the lamp take?", "how many of them?", "…take? how many of them?"),
    # Questions that refer get the things mentioned before, without the actions ...
    (RUN, "how do I stop it?", "how do I stop it (subprocess)?"),
    (RUN, "how do I kill it when it hangs?", "how do I kill it when it hangs (subprocess)?"),
    (RUN, "and capture its output?", "and capture its output (run subprocess)?"),
    ("how do I read a csv file?", "and write one?", "and write one (read csv file)?"),
    (CACHE, "How do I clear it?", "How do I clear it (functools.lru_cache)?"),
    (CACHE, "since which version?", "since which version (functools.lru_cache)?"),
    (KETTLE, "do I need the receipt for that?", "do I need the receipt for that (damaged kettle)?"),
    ("List the planets", "which of them have rings?", "which of them have rings (List planets)?"),
    # Another pronoun, which refers to nothing, may stand before the one that refers.
    (RUN, "Is it possible to stop it?", "Is it possible to stop it (subprocess)?"),
    (RUN, "Do I have this week to stop it?", "Do I have this week to stop it (subprocess)?"),
    (RUN, "do those who use it wait?", "do those who use it wait (run subprocess)?"),
    (RUN, "who says that I stop it?", "who says that I stop it (run subprocess)?"),
    # ... unless they may refer to the action.
    (RUN, "how long does it take?", "how long does it take (run subprocess)?"),
    (RUN, "Can't it hang?", "Can't it hang (run subprocess)?"),
    (VITAMIN, "is that safe during pregnancy?", "…during pregnancy (vitamin D adults day)?"),
    (
        ASPIRIN,
        "does it also prevent cancer?",
        "does it also prevent cancer (aspirin reduce stroke)?",
    ),
    ("who wrote Hamlet?", "when was he born?", "when was he born (wrote Hamlet)?"),
    # The same holds for questions about properties of everything.
    (RUN, "what is the default?", "what is the default (run subprocess)?"),
    (RUN, "which exceptions are raised?", "which exceptions are raised (run subprocess)?"),
    (RUN, "is there a faster way?", "is there a faster way (run subprocess)?"),
    (RUN, "can you give an example?", "can you give an example (run subprocess)?"),
    (RUN, "can I use a thread instead?", "can I use a thread instead (run subprocess)?"),
    (ASPIRIN, "what are the side effects?", "what are the side effects (aspirin reduce stroke)?"),
    # Other languages: only very short questions.
    ("Wie starte ich einen Prozess?", "und mit Timeout?", "…Prozess? und mit Timeout?"),
    ("如何启动子进程？", "为什么？", "如何启动子进程？ 为什么？"),
]
# Self-contained questions are unchanged.
STANDING = [
    "How do I parse a date string?",
    "And how do I parse a date string?",
    "Thanks! How do I compress a file?",
    "Ok. How do I contact support?",
    "what about reading a zip file?",
    "So what is two-factor authentication?",
    "make a temporary directory that is deleted afterwards",
    "check that a file exists",
    "How do I open a file and read it line by line?",
    "Can I iterate over a dict while deleting keys from it?",
    "Why is asyncio so slow and how do I make it faster?",
    "My script hangs when it reads stdin",
    "Is it possible to sort a dictionary by value?",
    "How long does it take to import numpy?",
    "What does it mean to be idempotent?",
    "What is the difference between arguments and parameters?",
    "What is the default encoding of open?",
    "what is an exception?",
    "what are exceptions?",
    "is there a better way to parse dates?",
    "How do I check whether two lists have the same elements?",
    "how do I write if else in one line?",
    "In Python, how do I count words?",
    "which XML parsers are there?",
    "garbage collector",
    "python datetime strptime format",
    "I want to parse XML",
    "list all environment variables",
    "Where is your store in Berlin?",
    "Chlamydia trachomatis is most prevalent among individuals in their 50s",
    "MafA phosphorylation decreases its ubiquitination.",
    "Wie lese ich eine Datei zeilenweise ein?",
    "如何读取一个文本文件的所有内容？",
]


@pytest.mark.parametrize(("before", "asked", "standing"), FOLLOW_UPS)
def test_a_follow_up_gets_what_it_lacks(before: str, asked: str, standing: str) -> None:
    said = rewrite_query(asked, [Turn(before, "An answer.")])
    assert said.endswith(standing.removeprefix("…"))
    if not standing.startswith("…"):
        assert said == standing


@pytest.mark.parametrize("asked", STANDING)
@pytest.mark.parametrize("before", [RUN, VITAMIN, "How do I install Postgres on Windows?"])
def test_a_change_of_topic_carries_nothing_over(before: str, asked: str) -> None:
    assert rewrite_query(asked, [Turn(before, "An answer.")]) == asked


@pytest.mark.parametrize("asked", [asked for _, asked, _ in FOLLOW_UPS] + STANDING + ["", " ?"])
def test_the_first_question_is_unchanged(asked: str) -> None:
    assert rewrite_query(asked, []) == asked


def test_a_second_follow_up_uses_the_last_self_contained_question() -> None:
    turns = [Turn(RUN, ""), Turn("and with a timeout?", ""), Turn("why?", "")]
    assert (
        rewrite_query("on Linux?", turns[:2])
        == "How do I run a subprocess with a timeout on Linux?"
    )
    assert rewrite_query("how do I stop it?", turns) == "how do I stop it (subprocess timeout)?"
    # A new topic in between takes precedence.
    turns.append(Turn("How do I read a file?", ""))
    assert rewrite_query("and write it?", turns) == "and write it (read file)?"


def test_the_condensed_question_has_precedence() -> None:
    turns = [Turn("and that?", "", condensed="How do I open a socket?")]
    assert rewrite_query("on Linux?", turns) == "How do I open a socket on Linux?"


@pytest.mark.parametrize(
    ("before", "asked", "longer"),
    [
        # 11 and 12 words with content, 500 and 501 characters, 3 and 4 words, 8 and 9 signs.
        (RUN, "can it stop B C D E F G H J K L", " M"),
        (RUN, f"how do I stop it{' ' * 483}?", "?"),
        ("Wie starte ich einen Prozess?", "und mit Timeout", " jetzt"),
        ("如何启动子进程？", "为什么要这样子做", "呢"),
    ],
)
def test_a_question_with_more_words_has_no_need_of_the_one_before(
    before: str, asked: str, longer: str
) -> None:
    turns = [Turn(before, "")]
    assert rewrite_query(asked, turns) != asked
    assert rewrite_query(asked + longer, turns) == asked + longer


def test_long_questions_are_neither_parsed_nor_repeated_completely() -> None:
    # Patterns with long look-ahead would take minutes.
    endless = "to a " * (MAX_QUERY_CHARACTERS // 5)
    assert rewrite_query(endless, [Turn(RUN, "")]) == endless
    many = "How do I " + " ".join(f"x{n}" for n in range(100)) + "?"
    assert rewrite_query("why?", [Turn(many, "")]).split() == [
        *(f"x{n}" for n in range(12)),
        "why?",
    ]


_words = st.sampled_from(
    "and what about it its that one (a) CSV 3.12 ? , how do I is in . ' x".split()
)
_said = st.text(max_size=20) | st.lists(_words, max_size=8).map(" ".join)


@given(st.lists(_said, max_size=4), _said)
def test_a_question_never_becomes_empty(before: list[str], asked: str) -> None:
    said = rewrite_query(asked, [Turn(text, "") for text in before])
    assert bool(said.strip()) is bool(asked.strip())
    assert len(said) <= MAX_QUERY_CHARACTERS
    assert rewrite_query(asked, []) == asked


TEXTS = {
    "kettle": "Kettle. The kettle boils water in three minutes. Descale the kettle monthly.",
    "kettle-returns": "Returns of kettles. A damaged kettle goes back with the receipt.",
    "lamp": "Lamp. The lamp takes two batteries. They last nine hours.",
    "lamp-returns": "Returns of lamps. A broken lamp goes back within a year.",
    "threads": "Threads. A thread is stopped with an event that it looks at.",
    "subprocess": "Subprocess. A subprocess is stopped with terminate, or with kill.",
    "subprocess-time": "Subprocess timeout. A timeout of a subprocess is given in seconds.",
    "socket-time": "Socket timeout. A timeout of a socket is given in seconds.",
    "stops": "Stop it. How bus drivers stop, and how to wait at a bus stop.",
    "seconds": "Seconds. With a timeout in sports, a team gets a minute and more.",
    "duration": "How long does it last? Wars last for years, days last for hours.",
}
# Conversations, and the documents that answer each question.
CONVERSATIONS = [
    [
        (RUN, "subprocess"),
        ("how do I stop it?", "subprocess"),
        ("with a timeout?", "subprocess-time"),
        ("Which batteries does the lamp take?", "lamp"),
        ("how long do they last?", "lamp"),
    ],
    [
        ("How do I open a socket?", "socket-time"),
        ("and with a timeout?", "socket-time"),
        ("What is a thread?", "threads"),
        ("how do I stop it?", "threads"),
        ("and a subprocess?", "subprocess"),
    ],
    [
        (KETTLE, "kettle-returns"),
        ("is the receipt needed for that?", "kettle-returns"),
        ("How do I descale a kettle?", "kettle"),
        ("how long does it take?", "kettle"),
    ],
]


async def test_a_condensed_follow_up_finds_more_than_the_bare_one(tmp_path: Path) -> None:
    embedder = WordEmbedder(64)
    items = [Item(id=name, title=text.split(".")[0], text=text) for name, text in TEXTS.items()]
    await build_snapshot(items, BuildOptions(store=str(tmp_path), shards=1), embedder)
    # By words, because these vectors have no meaning.
    options = SearchOptions(k=1, mode=SearchMode.LEXICAL)
    found: list[tuple[str, str, str, str]] = []
    async with opened(OBJECT, tmp_path, embedder) as retriever:

        async def first(text: str) -> str:
            hits = (await retriever.search(Query(text=text), options)).hits
            return hits[0].id if hits else ""

        for conversation in CONVERSATIONS:
            turns: list[Turn] = []
            for asked, wanted in conversation:
                standing = rewrite_query(asked, turns)
                found.append((standing, wanted, await first(standing), await first(asked)))
                turns.append(Turn(asked, "…", standing))
    assert [(standing, got) for standing, wanted, got, _ in found if got != wanted] == []
    assert sum(bare == wanted for _, wanted, _, bare in found) <= 9 < len(found) == 14
