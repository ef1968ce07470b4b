"""When the number of recorded interactions makes a training due."""

from __future__ import annotations

import time

from index_builder.releases.training_schedule import TrainingSchedule
from nearline.v1 import snapshot_pb2


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_first_training_needs_the_setting_and_later_ones_as_many_as_are_known() -> None:
    schedule = TrainingSchedule(1_000)
    assert schedule.needed(None) == 1_000
    known = snapshot_pb2.BehaviourCard(interactions=700, recorded=1_000)
    known.newest_time.FromSeconds(int(time.time()) - 3_600)
    # 300 of them were with items that are not in the collection.
    assert schedule.needed(known) == 1_700
    # After a day, a tenth more are enough.
    known.newest_time.FromSeconds(int(time.time()) - 90_000)
    assert schedule.needed(known) == 1_070
    # Trained on a file.
    on_file = snapshot_pb2.BehaviourCard(interactions=5_000, newest_time=known.newest_time)
    assert schedule.needed(on_file) == 500
    assert TrainingSchedule(0).needed(None) == 0
    assert not TrainingSchedule(0).should_read("shop", 10**9, 0)


def test_a_first_training_waits_while_the_log_is_filled_and_ten_minutes_at_most() -> None:
    clock = _Clock()
    schedule = TrainingSchedule(1_000, clock)
    assert schedule.is_filling("shop", 5_000)
    clock.now_s = 60.0
    assert schedule.is_filling("shop", 9_000)
    clock.now_s = 120.0
    assert not schedule.is_filling("shop", 9_500)
    assert schedule.is_filling("other", 9_500)
    for minute in range(3, 12):
        clock.now_s = 60.0 * minute
        assert schedule.is_filling("other", 2**minute * 9_500)
    clock.now_s = 720.0
    assert not schedule.is_filling("other", 2**12 * 9_500)


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
    # A training on enough was not finished, as after a kill or beside another upkeep.
    schedule.note_reading("other", 10_000, 1_000)
    assert schedule.should_read("other", 10_000, 1_000)
    clock.now_s = 3_600.0
    assert schedule.should_read("shop", 10_010, 1_000)
    assert not schedule.should_read("shop", 10_009, 1_000)
