"""When the number of recorded interactions makes a training due."""

from __future__ import annotations

from index_builder.releases.training_schedule import TrainingSchedule
from nearline.v1 import snapshot_pb2


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_first_training_needs_the_setting_and_later_ones_twice_what_is_known() -> None:
    schedule = TrainingSchedule(1_000)
    assert schedule.needed(None) == 1_000
    known = snapshot_pb2.BehaviourCard(interactions=700, recorded=1_000)
    # 300 of them were with items that are not in the collection.
    assert schedule.needed(known) == 2_000
    # Trained on a file.
    assert schedule.needed(snapshot_pb2.BehaviourCard(interactions=5_000)) == 10_000
    assert TrainingSchedule(0).needed(None) == 0
    assert not TrainingSchedule(0).should_read("shop", 10**9, 0)


def test_what_a_reading_found_of_others_is_subtracted_afterwards() -> None:
    schedule = TrainingSchedule(1_000)
    assert schedule.recorded("shop", 1_200) == 1_200
    schedule.note_reading("shop", 1_200, 900)
    assert schedule.recorded("shop", 1_200) == 900
    assert schedule.recorded("shop", 1_250) == 950
    assert schedule.recorded("other", 1_250) == 1_250
    assert schedule.recorded("shop", 100) == 0
    schedule.forget("shop")
    assert schedule.recorded("shop", 1_250) == 1_250


def test_a_log_is_read_again_after_an_hour_or_once_it_has_grown_by_a_tenth() -> None:
    clock = _Clock()
    schedule = TrainingSchedule(1_000, clock)
    assert not schedule.should_read("shop", 999, 1_000)
    assert schedule.should_read("shop", 10_000, 1_000)
    schedule.note_reading("shop", 10_000, 990)
    assert not schedule.should_read("shop", 10_009, 1_000)
    assert not schedule.should_read("shop", 10_010, 1_000)
    assert schedule.should_read("shop", 11_000, 1_000)
    clock.now_s = 3_600.0
    assert schedule.should_read("shop", 10_010, 1_000)
    assert not schedule.should_read("shop", 10_009, 1_000)
