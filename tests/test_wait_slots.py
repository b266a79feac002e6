"""How many calls may wait at once."""

from __future__ import annotations

from contextlib import ExitStack

from backend.auth.wait_slots import WaitSlots


def test_each_agent_has_as_many_as_it_may_and_all_together_no_more_than_there_are() -> None:
    slots = WaitSlots(per_agent=2, together=3)
    with ExitStack() as stack:
        taken = [stack.enter_context(slots.one_of(agent)) for agent in ("ann", "ann", "ann", "bob", "bob")]
        assert taken == [True, True, False, True, False]
    with slots.one_of("ann") as is_free:
        assert is_free


def test_a_wait_that_fails_gives_its_slot_back() -> None:
    slots = WaitSlots(per_agent=1, together=1)
    try:
        with slots.one_of("ann"):
            raise ValueError
    except ValueError:
        with slots.one_of("ann") as is_free:
            assert is_free


def test_nobody_waits_where_there_are_no_slots() -> None:
    with WaitSlots(0, 10).one_of("ann") as is_free:
        assert not is_free
