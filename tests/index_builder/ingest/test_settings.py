"""Settings of workers: the prefixes of URLs that they may read."""

from __future__ import annotations

import pytest

from index_builder.ingest.settings import WorkerSettings
from nearline.errors import SettingsError


@pytest.mark.parametrize(
    ("sources", "prefixes"),
    [
        ("", ()),
        (" , ", ()),
        ("s3://bucket/", ("s3://bucket/",)),
        (" file:///in/ ,https://host/a/", ("file:///in/", "https://host/a/")),
    ],
)
def test_prefixes_are_separated_by_commas(sources: str, prefixes: tuple[str, ...]) -> None:
    assert WorkerSettings(sources=sources).prefixes() == prefixes


@pytest.mark.parametrize("bad", ["https://host", "host/in/", "file:///in/a", "/in/"])
@pytest.mark.parametrize("before", ["", "s3://bucket/in/,"])
def test_a_prefix_without_a_scheme_or_a_final_slash_is_refused(before: str, bad: str) -> None:
    with pytest.raises(SettingsError, match=f"contains '{bad}'"):
        WorkerSettings(sources=before + bad).prefixes()
