"""The structure of pages: small documents with the traps of manuals and sites."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from index_builder.readers.html import parse_markup
from tests.index_builder.readers.structured_texts import faults_of

DOCBOOK = """<html><head><title>19.4. Memory</title></head><body>
<div class="navheader"><table><tr><td><a href="a.html">Prev</a></td><th>Chapter 19</th>
<td><a href="b.html">Next</a></td></tr></table><hr></div>
<div class="titlepage"><h2 class="title">19.4. Memory <a href="#M" class="id_link">#</a></h2></div>
<div class="toc"><dl class="toc"><dt><a href="#A">19.4.1. Limits</a></dt></dl></div>
<h3 class="title">19.4.1. Limits</h3>
<p>These matter:</p>
<dl class="variablelist"><dt><span class="term"><code>work_mem</code> (integer)</span>
<a href="#W" class="id_link">#</a></dt><dd><p>The default is
<code>4MB</code>.<a href="#ftn.1"><sup>[1]</sup></a></p></dd>
<dt><span class="term">-a<br></span><span class="term">--all</span></dt><dd><p>All of it.</p>
<pre class="programlisting">
SET all;
  -- twice
</pre><p>Once more.</p></dd></dl>
<div class="note"><h3 class="title">Note</h3><p>Restart it.</p></div>
<div class="warning"><table><tr><td rowspan="2"><img alt="[Warning]"></td><th>Warning</th></tr>
<tr><td><p>It forgets.</p></td></tr></table></div>
<p>To see it:</p><pre class="programlisting">SHOW work_mem;</pre>
<div class="table"><p class="title"><b>Table 1. Sizes</b></p><table><thead><tr><th>Name</th>
<th colspan="2">Size</th></tr><tr><th></th><th>Least</th><th>Most</th></tr></thead><tbody>
<tr><td rowspan="2">small</td><td>1</td><td>2</td></tr><tr><td>3</td><td></td></tr>
<tr><td colspan="3">Others</td></tr><tr><td>any</td><td>–</td><td><ul><li>a</li><li>b</li></ul></td>
</tr></tbody></table></div>
<div class="footnotes"><div class="footnote"><p><a href="#W"><sup>[1]</sup></a> Of memory.</p></div>
</div><div class="navfooter"><a href="a.html">Prev</a></div></body></html>"""
DOCBOOK_TEXT = """### 19.4.1. Limits

These matter:

- work_mem (integer): The default is 4MB.
- -a, --all:

  All of it.

  ```
  SET all;
    -- twice
  ```

  Once more.

Note: Restart it.

Warning: It forgets.

To see it:

```
SHOW work_mem;
```

Table 1. Sizes:

- Name: small; Size Least: 1; Size Most: 2
- Name: small; Size Least: 3

Others:

- Name: any; Size Least: –; Size Most: a, b

Of memory."""

SPHINX = """<title>gzip — Files — Python 3 documentation</title><body>
<div class="related" role="navigation"><ul><li><a href="i">index</a> |</li></ul></div>
<div class="body" role="main"><section id="gzip"><h1>gzip — Files<a class="headerlink"
href="#gzip">¶</a></h1><p>Reads files <a class="footnote-reference" href="#f">[1]</a>.</p>
<dl class="py function"><dt class="sig">gzip.<b>open</b>(name)<a class="headerlink"
href="#o">¶</a></dt><dd><p>Opens it.</p><dl class="field-list"><dt>Returns<span>:</span></dt>
<dd><p>a file</p></dd></dl></dd></dl>
<div class="admonition seealso"><p class="admonition-title">See also</p><p>zlib.</p></div>
<aside class="footnote"><span class="label"><span class="fn-bracket">[</span><a
role="doc-backlink" href="#r">1</a><span class="fn-bracket">]</span></span><p>Of Unix.</p></aside>
<div class="toctree-wrapper"><ul><li><a href="x">More</a></li></ul></div></section></div>
<div class="sphinxsidebar">Bugs</div></body>"""
SPHINX_TEXT = """Reads files.

- gzip.open(name):

  Opens it.

  - Returns: a file

See also: zlib.

Of Unix."""

SITE = """<title>Delivery | Garden</title><body><header><a href="/">Garden</a></header>
<div class="breadcrumbs"><a href="/">Home</a> &gt; Delivery</div><h1>Delivery</h1>
<p><a href="/">Home</a> | <a href="/shop">Shop</a></p>
<table><tr><td><b>Country</b><td><b>Days</b></tr><tr><td>Austria<td>2</tr></table>
<table><tr><td>Mon–Fri<td>9–17</tr><tr><td>Sat<td>9–12</tr></table>
<table role="presentation"><tr><td><p>Left.</p><p>More.</p><td><p>Right.</p></tr></table>
<h2>Questions</h2><p><strong>May I pick it up?</strong></p><p>Yes.</p>
<p><b>Q: Who pays?</b><br>A: We do.</p><p><b>When?</b> Today.</p>
<details><summary>1. And damage?</summary><p>Send a photo.</p></details>
<dl><dt>Do you ship bulbs?</dt><dd>In autumn.</dd></dl>
<button aria-controls="x">Is there a minimum?</button><div id="x" role="region" hidden>No.</div>
<p><b>Contact</b></p><address>Garden<br>Main Street 1<br><br>Vienna</address>
<ol start="3"><li>Write:<ul><li>name<li>place</ul><li><p>Send.</p><pre>mail</pre></ol>
<p>Forms:</p><ul><li><a href="/return.pdf">Return form</a></ul>
<ul><li><h3>Free</h3><p>1 GB.</p><li><h3>Paid</h3><p><s>7</s> 9 GB.</p></ul>
<figure><img src="b.png" alt="A box of bulbs"><figcaption>How they come</figcaption></figure>
<p>• First point</p><p># no heading</p><p>*****</p><p><b>Not followed</b></p>
<h2>See also</h2><ul><li><a href="/a">Care</a><li><a href="/b">Returns</a></ul>
<p><a href="#top">Back to top</a></p><div id="footer">© Garden</div></body>"""
SITE_TEXT = """- Country: Austria; Days: 2

- Mon–Fri: 9–17
- Sat: 9–12

Left.

More.

Right.

## Questions

### May I pick it up?

Yes.

### Who pays?

We do.

### When?

Today.

### And damage?

Send a photo.

### Do you ship bulbs?

In autumn.

### Is there a minimum?

No.

### Contact

Garden
Main Street 1

Vienna

3. Write:
   - name
   - place
4. Send.

   ```
   mail
   ```

Forms:

- Return form

- Free: 1 GB.
- Paid: 9 GB.

Figure: A box of bulbs

Figure: How they come

- First point

no heading

Not followed"""

JAVADOC = """<title>Box (API)</title><main><h1>Class Box</h1><ul class="details-list"><li>
<section><h2>Methods</h2><div class="summary-table"><div class="table-header col-first">Type</div>
<div class="table-header col-last">Method</div><div class="col-first">int</div>
<div class="col-last">size()</div></div><ul><li><section><h3>size</h3><div>int size()</div>
<div>The number.</div><dl class="notes"><dt>Returns:</dt><dd>it</dd></dl></section></ul></section>
</ul></main>"""
JAVADOC_TEXT = """# Class Box

## Methods

- Type: int; Method: size()

### size

int size()

The number.

- Returns: it"""

DOXYGEN = """<title>box.h</title><div class="headertitle"><div class="title">box.h</div></div>
<h2 class="memtitle"><span class="permalink"><a href="#1">◆</a></span>size()</h2>
<table class="memname"><tr><td>int size<td>(<td>box<td>b<td>)</table>
<div class="fragment"><div class="line"><span class="lineno">1</span>int n;</div>
<div class="line">n = size(b);</div></div>"""
DOXYGEN_TEXT = """## size()

int size ( box b )

```
int n;
n = size(b);
```"""


@pytest.mark.parametrize(
    ("page", "title", "text"),
    [
        (DOCBOOK, "19.4. Memory", DOCBOOK_TEXT),
        (SPHINX, "gzip — Files", SPHINX_TEXT),
        (SITE, "Delivery", SITE_TEXT),
        (JAVADOC, "Box (API)", JAVADOC_TEXT),
        (DOXYGEN, "box.h", DOXYGEN_TEXT),
    ],
    ids=["DocBook", "Sphinx", "site", "javadoc", "doxygen"],
)
def test_pages_are_structured_text(page: str, title: str, text: str) -> None:
    document = parse_markup(page)
    assert document.title == title
    assert document.text == text
    assert faults_of(text) == []


def test_a_page_of_contents_is_its_title() -> None:
    page = '<title>Manual</title><h2>Contents</h2><div class="toc"><a href="a">One</a></div>'
    assert parse_markup(page).text == "Manual"
    links = "<ul><li><a href='a'>One</a><ul><li><a href='b'>Two</a></ul></ul>"
    assert parse_markup(f"<title>Manual</title>{links}").text == "Manual"
    assert parse_markup("<title>Application</title><script>render()</script>").text == ""


def test_long_descriptions_stand_below_their_term() -> None:
    short, long = "x" * 400, "x" * 401
    page = f"<dl><dt>a<dd>{short}<dt>b<dt>c<dd>{long}</dl>"
    assert parse_markup(page).text == f"- a: {short}\n- b, c:\n\n  {long}"


def test_what_is_in_too_many_lists_is_still_read() -> None:
    lines = parse_markup("<ul><li>a" * 500).text.split("\n")
    assert len([line for line in lines if line.strip()]) == 500
    assert max(map(len, lines)) < 40


def test_what_cells_repeat_is_limited() -> None:
    spanned = "<td rowspan=1000>" + "x" * 120
    page = "<table><tr>" + spanned * 60 + "<tr><td>y" * 900
    assert len(parse_markup(page).text) < 20 * len(page)


_TAGS = (
    "div p ul ol li dl dt dd table tr td th caption h1 h2 h6 pre b a br details summary figure "
    "figcaption blockquote main aside article header button sup img span"
).split()
_ATTRIBUTES = (
    "",
    " class=title",
    " class=note",
    " class=toc",
    " href=#x",
    " href=y",
    " rowspan=3",
    " colspan=2",
    " hidden",
    " alt='a b c'",
    " aria-controls=x",
)
_WORDS = ["a", "- b", "# c", "```", "q?", "Q: x?", "A: y", "1. z", "\n\n", " ", "x:", "|"]
_pieces = st.one_of(
    st.builds("<{}{}>".format, st.sampled_from(_TAGS), st.sampled_from(_ATTRIBUTES)),
    st.builds("</{}>".format, st.sampled_from(_TAGS)),
    st.sampled_from(_WORDS),
    st.text(max_size=8),
)


@given(st.lists(_pieces, max_size=40).map("".join))
def test_any_markup_is_structured_text(markup: str) -> None:
    document = parse_markup(markup)
    assert faults_of(document.text) == [], document.text
    assert not re.search(r"\s{2}|\n", document.title)
