"""Notifications that wake whoever waits, and are not lost while nobody does."""

from __future__ import annotations

import threading

from backend.jobs.notifier import LocalNotifier, Notifier, Notifiers, NullNotifier


def test_a_notification_before_the_wait_counts_once() -> None:
    notifier = LocalNotifier()
    notifier.notify()
    notifier.notify()
    assert notifier.wait(0)
    assert not notifier.wait(0)


def test_without_a_notification_the_wait_ends_by_itself() -> None:
    assert not LocalNotifier().wait(0.01)


def test_a_notification_wakes_whoever_waits() -> None:
    notifier = LocalNotifier()
    heard: list[bool] = []
    waiter = threading.Thread(target=lambda: heard.append(notifier.wait(30)))
    waiter.start()
    notifier.notify()
    waiter.join(30)
    assert heard == [True]


def test_notifications_of_many_threads_are_one_signal() -> None:
    notifier = LocalNotifier()
    ringers = [threading.Thread(target=notifier.notify) for _ in range(20)]
    for ringer in ringers:
        ringer.start()
    for ringer in ringers:
        ringer.join()
    assert [notifier.wait(0), notifier.wait(0)] == [True, False]


def test_a_null_notifier_is_a_notifier() -> None:
    notifiers: list[Notifier] = [NullNotifier(), LocalNotifier()]
    for notifier in notifiers:
        notifier.notify()


def test_several_notifiers_notify_together() -> None:
    notifiers = LocalNotifier(), LocalNotifier()
    Notifiers(*notifiers).notify()
    assert [notifier.wait(0) for notifier in notifiers] == [True, True]
    Notifiers().notify()
