"""The structure of Markdown, AsciiDoc and reStructuredText; any text of any format."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from index_builder.readers.protocol import UnreadableFile
from index_builder.readers.text import parse_text
from tests.index_builder.readers.structured_texts import faults_of

MARKDOWN = """---
title: Unused
---
# The *title*

Intro with a [link](http://example.com) and
`code`[^1].

> [!NOTE]
> Take care.

| Setting | Default |
| ------- | ------- |
| `a`     | **1**   |

1. One:

   ```sh
   run
   ```
2. Two
   - nested

**How long?**
A year.

- [Only](#a)
- [links](#b)

<details><summary>And then?</summary>

It ends.

</details>

[^1]: The foot.
"""
MARKDOWN_TEXT = """Intro with a link and code.

Note: Take care.

- Setting: a; Default: 1

1. One:

   ```
   run
   ```

2. Two
   - nested

## How long?

A year.

## And then?

It ends.

The foot."""

ASCIIDOC = """git-demo(1)
===========
:author: Nobody

NAME
----
git-demo - Show `things`

SYNOPSIS
--------
[verse]
'git demo' [-a | --all]
\t   [<path>...]

[[options]]
OPTIONS
-------
ifdef::all[]
-a::
--all::
\tShow {asterisk} *all*. See linkgit:git-add[1]
\tand <<options,the options>>.
endif::all[]

--depth=<n>::
\tThe depth. These work:
+
--
* `one`
** nested
* two
--
+
----
$ git demo
  a
----
+
It ends.

.Sizes
[options="header"]
|===
|Name |Size

|a |1
|===

NOTE: Take care.

. First
. Second
+
more of it.

////
hidden
////

include::more.txt[]
"""
ASCIIDOC_TEXT = """## NAME

git-demo - Show things

## SYNOPSIS

```
git demo [-a | --all]
\t   [<path>...]
```

## OPTIONS

- -a, --all: Show * all. See git-add(1) and the options.
- --depth=<n>:

  The depth. These work:

  - one
    - nested
  - two

  ```
  $ git demo
    a
  ```

  It ends.

Sizes:

- Name: a; Size: 1

Note: Take care.

1. First
2. Second

   more of it."""

RESTRUCTURED_TEXT = """=====
Title
=====

.. contents::

See :ref:`here <target>`, :class:`~a.B` and ``code`` [1]_.

.. [1] The foot.

.. note:: Take care.

.. py:function:: open(name)
   :noindex:

   Opens it.

   :param name: the name

.. versionadded:: 3.2
   More.

.. code-block:: python

   print()

Part
----

Example::

   $ run

term
   Its description.

=====  =====
Name   Size
=====  =====
a      1
=====  =====

.. include:: /etc/hostname

.. raw:: html

   <p>raw</p>
"""
RESTRUCTURED_TEXT_TEXT = """See here, B and code.

The foot.

Note: Take care.

- open(name):

  Opens it.

  - param name: the name

Added in version 3.2: More.

```
print()
```

## Part

Example:

```
$ run
```

- term: Its description.

- Name: a; Size: 1"""


@pytest.mark.parametrize(
    ("suffix", "source", "title", "text"),
    [
        (".md", MARKDOWN, "The title", MARKDOWN_TEXT),
        (".adoc", ASCIIDOC, "git-demo(1)", ASCIIDOC_TEXT),
        (".txt", ASCIIDOC, "git-demo(1)", ASCIIDOC_TEXT),
        (".rst", RESTRUCTURED_TEXT, "Title", RESTRUCTURED_TEXT_TEXT),
    ],
    ids=["Markdown", "AsciiDoc", "AsciiDoc as text", "reStructuredText"],
)
def test_texts_are_structured_text(suffix: str, source: str, title: str, text: str) -> None:
    document = parse_text(source, suffix)
    assert document.title == title
    assert document.text == text
    assert faults_of(text) == []


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# A #\n", "A"),
        ("#\tA ##  \r\n", "A"),
        ("#  \n# B\n", "B"),
        ("   ### C", "C"),
        ("    # no\n", ""),
        ("#no\n", ""),
        ("####### no\n", ""),
        ("D d\r\n===\r\n", "D d"),
        ("D\n=== x\n", ""),
        ("~~~\n# no\n~~~\n# E", "E"),
        ("```\n# code to the end", ""),
        ("---\ntitle: 'F'\n---\ntext", "F"),
        ("---\ntitle: F\n---\n## G *g*", "G g"),
    ],
)
def test_the_title_of_markdown_is_its_first_heading(text: str, title: str) -> None:
    assert parse_text(text, ".md").title == title


def test_a_rule_at_the_beginning_of_markdown_is_no_front_matter() -> None:
    assert parse_text("---\nOne.\n\n---\nTwo.", ".md").text == "One.\n\nTwo."


def test_restructured_text_in_a_text_file_is_not_asciidoc() -> None:
    text = (
        "Warnings\n========\n\n.. index:: single: a\n\nExample::\n\n  run\n\nMore\n~~~~\n\nIt is."
    )
    assert ".. index:: single: a" in parse_text(text, ".txt").text


def test_restructured_text_that_is_nested_too_deeply_is_refused() -> None:
    text = "\n".join(" " * depth + "* a\n" for depth in range(400))
    with pytest.raises(UnreadableFile, match="nested too deeply"):
        parse_text(text, ".rst")


_LINES = (
    "* a,** b,- c,. d,1. e,a::,a::: b,+,--,----,====,|===,|x |y,[verse],.Title,== H,Title,=====,"
    "~~~~~,NOTE: x,:a: b,{a},text of some length,  indented,Q: x?,A: y,AAAA,3.2 Fees,k: v,....,"
    "a ... 3,```,> q,.SH N,.TP,.IP a,.IP \\(bu,.RS,.RE,.PP,.nf,.fi,.B a,.Bl -tag,.It Fl a,.El,.TS,"
    ".TE,.Op Fl a,# h,<p>,\t,#,-"
).split(",")


@given(
    st.lists(
        st.one_of(st.sampled_from(["", *_LINES]), st.text(max_size=6)), min_size=2, max_size=25
    ),
    st.sampled_from([".md", ".adoc", ".1", ".txt"]),
)
def test_any_text_is_structured_text(lines: list[str], suffix: str) -> None:
    document = parse_text("\n".join([".TH A 1", *lines]), suffix)
    assert "\n" not in document.text.strip() or faults_of(document.text) == [], document.text
