"""The quality report of a build as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from itertools import pairwise

from index_builder.reports import frontier_chart
from index_builder.reports.build_report import BuildReport, Histogram
from index_builder.reports.html import figures, page, table
from index_builder.reports.plots import HEIGHT, LABELS, WIDTH, bars
from nearline.items.search_languages import shown_languages
from nearline.items.search_weights import TEXT, TITLE, shown_weights


def render(report: BuildReport) -> str:
    """Returns the page."""
    recall = f"{report.recall_at_10:.4f}" if report.golden_queries else "not measured"
    parts = [
        f"<h1>{escape(report.collection)}</h1>",
        f"<p>Snapshot <code>{escape(report.snapshot_id)}</code></p>",
        figures(
            [
                (f"{report.documents:,}", "documents"),
                (f"{report.chunks:,}", "chunks"),
                (f"{report.bad_rows:,}", "rows left out"),
                (f"{report.truncated:,}", "chunks truncated by the model"),
                (recall, "recall@10"),
            ]
        ),
        f"<p>Recall@10 is the share of the exact ten best that the index finds with its defaults, "
        f"over {report.golden_queries:,} sampled queries. It judges the index, not the model.</p>",
        "<h2>Index</h2>",
        table(_index_rows(report)),
        *([] if not report.words else ["<h2>Words</h2>", table(_lexical_rows(report))]),
        *(_choice(report.choice) if report.choice is not None else ()),
        "<h2>Sources</h2>",
        table(
            ((str(s["uri"]), f"{s['documents']:,} documents, {s['bad_rows']:,} left out"))
            for s in report.sources
        ),
    ]
    if report.bad_row_sample:
        parts += ["<h2>Examples left out</h2>", table((row,) for row in report.bad_row_sample)]
    if report.tokens is not None:
        parts += ["<h2>Chunk length in tokens, with the title</h2>", _bars(report.tokens)]
    parts += [
        "<h2>Size</h2>",
        table((name, _size(size)) for name, size in report.bytes.items()),
        "<h2>Time</h2>",
        table((stage, f"{seconds:,.1f} s") for stage, seconds in report.seconds.items()),
    ]
    return page(f"{report.collection}: {report.snapshot_id}", parts)


def _choice(choice: Mapping[str, object]) -> list[str]:
    limit = choice["max_bytes"]
    within = f" within {_size(int(str(limit)))}" if limit else ""
    return [
        "<h2>How the index was chosen</h2>",
        f"<p>The fastest index with recall@10 of at least {choice['target_recall']}{within}, "
        f"measured on {int(str(choice['sample'])):,} of these vectors with one query in one "
        "thread; time and memory are extrapolated to all vectors. Each dot is an index with one "
        "search width, pale if another is better in recall, time and memory; the line connects "
        "the best recall for each time.</p>",
        frontier_chart.draw(choice),
        table(frontier_chart.table_rows(choice)),
    ]


def _index_rows(report: BuildReport) -> list[tuple[str, str]]:
    widths = [
        f"{name} {value}"
        for name, value in (("ef_search", report.ef_search), ("nprobe", report.nprobe))
        if value
    ]
    shards = ", ".join(f"{documents:,}" for documents in report.documents_per_shard)
    return [
        ("Factory", ", ".join([report.index_factory.replace(",", ", "), *widths])),
        ("Vectors", f"{report.dim} numbers, {report.metric.replace('_', ' ')}"),
        ("Model", report.model or "none: you brought the vectors"),
        ("Fingerprint", report.fingerprint or "none"),
        ("Most chunks of one document", f"{report.max_chunks_per_document:,}"),
        ("Documents per shard", shards),
        ("FAISS", report.faiss_version),
        ("Device", "; ".join([report.device, *report.device_notes])),
    ]


def _lexical_rows(report: BuildReport) -> list[tuple[str, str]]:
    tuned = f"{report.dense_weight:.2f}, {report.weight_origin}"
    if report.tuning_queries:
        tuned += (
            f": nDCG@10 {report.tuning_ndcg_at_10:.4f} over the {report.tuning_queries:,} judged "
            "queries of the tuning"
        )
    return [
        ("Distinct words", f"{report.words:,}"),
        ("Language", report.language),
        ("Weights of fields", shown_weights({TITLE: 1.0, TEXT: 1.0, **report.search_weights})),
        ("Languages of attributes", shown_languages(report.search_languages) or "as above"),
        ("Rules of synonyms", f"{report.synonym_rules:,}"),
        ("Weight of vectors in hybrid search", tuned),
    ]


def _bars(histogram: Histogram) -> str:
    counts, edges = histogram.counts, histogram.edges
    step = WIDTH / len(counts)
    top = max(counts) or 1
    spans = [f"{low}–{high - 1}" for low, high in pairwise(edges)]
    spans[-1] = f"{edges[-2]} or more"
    titles = [f"{span} tokens: {count:,} chunks" for span, count in zip(spans, counts, strict=True)]
    labels = "".join(
        f'<text x="{number * step:.1f}" y="{HEIGHT + 14}">{edges[number]}</text>'
        for number in range(0, len(counts), 4)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + LABELS}" role="img" '
        f'aria-label="Histogram of chunk lengths">{"".join(bars(counts, titles, top))}'
        f'<line x1="0" y1="{HEIGHT}" x2="{WIDTH}" y2="{HEIGHT}"/>{labels}'
        f'<text x="{WIDTH}" y="11" text-anchor="end">tallest bar: {top:,} chunks</text></svg>'
    )


def _size(size: int) -> str:
    if size < 1024:
        return f"{size:,} bytes"
    exponent = min((size.bit_length() - 1) // 10, 4)
    return f"{size / 1024**exponent:,.1f} {'KMGT'[exponent - 1]}iB"
