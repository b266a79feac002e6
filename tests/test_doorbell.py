"""Rings that wake whoever waits, and are not lost while nobody does."""

from __future__ import annotations

import threading

from backend.work.doorbell import Doorbell, Doorbells, LocalDoorbell, SilentDoorbell


def test_a_ring_before_the_wait_is_heard_once() -> None:
    bell = LocalDoorbell()
    bell.ring()
    bell.ring()
    assert bell.wait(0)
    assert not bell.wait(0)


def test_without_a_ring_the_wait_ends_by_itself() -> None:
    assert not LocalDoorbell().wait(0.01)


def test_a_ring_wakes_whoever_waits() -> None:
    bell = LocalDoorbell()
    heard: list[bool] = []
    waiter = threading.Thread(target=lambda: heard.append(bell.wait(30)))
    waiter.start()
    bell.ring()
    waiter.join(30)
    assert heard == [True]


def test_rings_of_many_threads_are_one_signal() -> None:
    bell = LocalDoorbell()
    ringers = [threading.Thread(target=bell.ring) for _ in range(20)]
    for ringer in ringers:
        ringer.start()
    for ringer in ringers:
        ringer.join()
    assert [bell.wait(0), bell.wait(0)] == [True, False]


def test_a_silent_bell_is_a_bell() -> None:
    bells: list[Doorbell] = [SilentDoorbell(), LocalDoorbell()]
    for bell in bells:
        bell.ring()


def test_several_bells_ring_together() -> None:
    bells = LocalDoorbell(), LocalDoorbell()
    Doorbells(*bells).ring()
    assert [bell.wait(0) for bell in bells] == [True, True]
    Doorbells().ring()
