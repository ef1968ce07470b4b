"""While a canary with another model is on trial, changes also carry the vectors of that model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from nearline import contract as c
from nearline.errors import InvalidRequest, NearlineError, NotReady, Overloaded
from retrieval.embedders.endpoints import Embedders
from retrieval.rollout.trial import Trial
from tests.retrieval.small_snapshots import FINGERPRINT
from tests.retrieval.writable_collection import PickyEmbedder, Written, written

NEW = "another model"


def on_trial(fingerprint: str) -> tuple[Written, PickyEmbedder]:
    """Starts a trial; returns the collection, and the embedder of another model."""
    here, other = written(), PickyEmbedder()
    other.fingerprint = NEW
    here.writer._embedders = Embedders({"here": here.embedder, "there": other})
    trial = SimpleNamespace(canary=SimpleNamespace(fingerprint=fingerprint))
    here.writer._collections.trials[c.DEFAULT_COLLECTION] = cast(Trial, trial)
    return here, other


@pytest.mark.parametrize("lane", c.Lane)
async def test_a_change_carries_the_vectors_of_both_models(lane: c.Lane) -> None:
    here, other = on_trial(NEW)
    await here.writer.upsert_items([c.Item(id="a", text="red cloud")], lane=lane)
    assert (await here.changes())["a"].vectors.keys() == {FINGERPRINT, NEW}
    assert [one[2] for one in (*here.embedder.asked, *other.asked)] == [lane, lane]


@pytest.mark.parametrize("error", [NotReady("away"), Overloaded("full"), InvalidRequest("long")])
async def test_a_failure_of_the_model_on_trial_fails_no_write(error: NearlineError) -> None:
    here, other = on_trial(NEW)
    await here.writer.upsert_items([c.Item(id="before", text="red cloud")])
    other.error = error
    reply = await here.writer.upsert_items([c.Item(id="a", text="red cloud")])
    assert [one.outcome for one in reply.results] == [c.WriteOutcome.APPLIED]
    # Followers of the log embed the text for the canary themselves.
    assert (await here.changes())["a"].vectors.keys() == {FINGERPRINT}


async def test_a_canary_with_the_same_model_costs_no_second_embedding() -> None:
    here, _ = on_trial(FINGERPRINT)
    await here.writer.upsert_items([c.Item(id="a", text="red cloud")])
    assert len(here.embedder.asked) == 1
    assert (await here.changes())["a"].vectors.keys() == {FINGERPRINT}
