"""The structure of manual pages."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from index_builder.readers.text import parse_prose, parse_text
from tests.index_builder.readers.structured_texts import faults_of

MAN = r""".\" A comment.
.TH DEMO 1 "2024-01-01"
.SH NAME
demo \- show \fIthings\fR
.SH "EXIT STATUS"
.TP
.BR \-a ", " \-\-all
Show
.B all
of it.
.TP
\fB\-d\fR
Depth.
.IP
More on depth.
.PP
These work:
.IP \(bu 2
one
.IP \(bu
two
.PP
Run it:
.PP
.nf
demo \e
  \-a
.fi
.PP
\-\-follow
.RS 4
Goes on.
.RE
.TS
l l.
Name	Size
a	1
.TE
"""
MAN_TEXT = """## Name

demo - show things

## Exit status

- -a, --all: Show all of it.
- -d:

  Depth.

  More on depth.

These work:

- one
- two

Run it:

```
demo \\
  -a
```

- --follow: Goes on.

- Name: Size
- a: 1"""

MDOC = r""".Dd January 1, 2024
.Dt DEMO 8
.Sh NAME
.Nm demo
.Nd show things
.Sh DESCRIPTION
.Nm
shows
.Dq things ,
see
.Xr ls 1 .
.Bl -tag -width x
.It Fl a Ar name
The
.Ar name .
.It Xo
.Fl L
.Sm off
.Oo host : Oc port
.Sm on
.Xc
Forwards.
.It Xo Ic chgrp
.Op Fl h
.Ar path
.Xc
Changes it.
.El
"""
MDOC_TEXT = """## Name

demo — show things

## Description

demo shows “things”, see ls(1).

- -a name: The name.
- -L [host:]port: Forwards.
- chgrp [-h] path: Changes it."""


@pytest.mark.parametrize(
    ("suffix", "source", "title", "text"),
    [(".1", MAN, "demo(1)", MAN_TEXT), (".8", MDOC, "demo(8)", MDOC_TEXT)],
    ids=["man", "mdoc"],
)
def test_manual_pages_are_structured_text(suffix: str, source: str, title: str, text: str) -> None:
    document = parse_text(source, suffix)
    assert document.title == title
    assert document.text == text
    assert faults_of(text) == []


def test_a_file_named_like_a_manual_page_that_is_none_has_no_document(tmp_path: Path) -> None:
    path = tmp_path / "system.log.1"
    path.write_bytes(b"\xff\x00 no text")
    assert parse_prose(path) is None


def test_a_list_inside_a_description_belongs_to_its_term() -> None:
    lists = ".PP\n\\-\\-mode\n.RS 4\nOne of:\n.IP \\(bu 2\nfast\n.PP\nIt is fast.\n.RE"
    text = parse_text(f".TH A 1\n.SH B\n{lists}\n", ".1").text
    assert text == "## B\n\n- --mode:\n\n  One of:\n\n  - fast\n\n  It is fast."


def test_cells_of_several_lines_are_read_in_linear_time() -> None:
    cell = "T{\n" + "word\n" * 40_000 + "T}\n"
    source = f".TH A 1\n.SH B\n.TS\nl l.\nName\tWhat\na\t{cell}b\tlast\n.TE\n"
    began = time.process_time()
    text = parse_text(source, ".1").text
    assert time.process_time() - began < 2.0
    assert "- a: word word" in text and text.endswith("- b: last")
