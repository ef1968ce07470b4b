"""Tests of the remedies that a failed `nearline ingest` names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from nearline.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NearlineError,
    NotReady,
    PermissionDenied,
)
from nearline_cli.commands.ingest import _with_remedy


@pytest.mark.parametrize(
    ("error", "may_exist"),
    [
        (PermissionDenied("no"), False),
        (InvalidRequest("no"), False),
        (NotReady("away"), True),
        (DeadlineExceeded("late"), True),
        (InternalError("bug"), True),
    ],
)
def test_a_definite_refusal_is_not_said_to_have_left_a_job(
    error: NearlineError, may_exist: bool
) -> None:
    submitter = cast(Any, SimpleNamespace(job=None, sent=True))
    shown = _with_remedy(error, submitter, "j1")
    assert type(shown) is type(error)
    assert ("run the same command with --job j1" in shown.message) is may_exist


def test_before_anything_was_sent_an_error_stays_as_it_is() -> None:
    error = NotReady("away")
    for submitter in (None, cast(Any, SimpleNamespace(job=None, sent=False))):
        assert _with_remedy(error, submitter, "j1") is error
