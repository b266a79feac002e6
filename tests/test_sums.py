"""Sums: of what comes often the first is reported, and later how many followed."""

from __future__ import annotations

from backend.telemetry.sums import Sums


class Watch:
    """Seconds that pass by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_of_a_kind_is_reported_and_the_rest_once_their_time_is_over() -> None:
    watch = Watch()
    sums: Sums[str] = Sums(60.0, 10, watch)
    assert [sums.is_first("a", "first", "many") for _ in range(4)] == [True, False, False, False]
    assert sums.is_first("b", "other", "many")
    watch.now = 59.0
    assert sums.take() == []
    watch.now = 60.0
    assert sums.take() == [("first", 3)]
    assert sums.take() == []
    assert sums.is_first("a", "next", "many")


def test_all_of_them_may_be_taken_before_their_time() -> None:
    sums: Sums[str] = Sums(60.0, 10, Watch())
    assert [sums.is_first("a", "first", "many") for _ in range(2)] == [True, False]
    assert sums.take(all_of_them=True) == [("first", 1)]


def test_more_kinds_than_are_told_apart_are_one() -> None:
    sums: Sums[str] = Sums(60.0, 2, Watch())
    found = [sums.is_first(kind, kind, "many") for kind in "abcdec"]
    assert found == [True, True, True, False, False, False]
    assert sums.is_first("a", "a", "many") is False
    assert sums.take(all_of_them=True) == [("a", 1), ("many", 3)]
