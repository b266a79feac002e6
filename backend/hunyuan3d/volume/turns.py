"""Searches of one batch's parts taking turns, so that the device evaluates one part's field while another is searched.

A search waits for the device again and again, to learn how many points it found. Alone, the device then has nothing to
do until the host has gone on. Here a search hands over after every question to the field: its own small work runs on a
stream of its own, all calls of the field one after another on another stream. What is computed stays the same, and
only one call of the field is in memory at a time. This module does not know what is searched for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

Out = TypeVar("Out")
# Yields how many levels are done, or None in the midst of one; returns what was found.
Search = Generator[int | None, None, Out]


class Lane:
    """Where one part's work runs: here, on the caller's stream."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """Run the part's own work."""
        yield

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Run calls of the field, after the part's work so far and before what follows."""
        yield


class StreamLane(Lane):
    """A part on a stream of its own, with the field on one that all parts share."""

    def __init__(self, own: torch.cuda.Stream, field: torch.cuda.Stream) -> None:
        self.own = own
        self.field = field

    @contextmanager
    def active(self) -> Iterator[None]:
        """Run the part's own work on its stream."""
        with torch.cuda.stream(self.own):
            yield

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Run calls of the field on the shared stream.

        The part's stream waits for them, so its memory is not used anew before they have read it.
        """
        self.field.wait_stream(self.own)
        with torch.cuda.stream(self.field):
            yield
        self.own.wait_stream(self.field)


@contextmanager
def lanes(device: torch.device, count: int) -> Iterator[Sequence[Lane]]:
    """As many lanes as there are parts, ordered after the caller's work before and before its work after."""
    if device.type != "cuda" or count == 1:
        yield [Lane() for _ in range(count)]
        return
    caller = torch.cuda.current_stream(device)
    own, field = _streams(device, count)
    for stream in (*own, field):
        stream.wait_stream(caller)
    try:
        yield [StreamLane(stream, field) for stream in own]
    finally:
        for stream in (*own, field):
            caller.wait_stream(stream)


@cache
def _streams(device: torch.device, count: int) -> tuple[list[torch.cuda.Stream], torch.cuda.Stream]:
    """Streams for the parts, which go first, and one for the field; kept, since memory is kept by stream."""
    own = [torch.cuda.Stream(device, priority=-1) for _ in range(count)]  # type: ignore[no-untyped-call]
    return own, torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def in_turns(searches: Sequence[tuple[Lane, Search[Out]]], levels: int, on_level: Callable[[int], None]) -> list[Out]:
    """Run all searches to their ends, each a turn after the other; what they return, in order.

    on_level(done) is called once all of them have done so many levels of `levels`; what it raises ends the searches.
    """
    found: dict[int, Out] = {}
    done, told = [0] * len(searches), 0
    waiting = deque(range(len(searches)))
    while waiting:
        number = waiting.popleft()
        lane, search = searches[number]
        with lane.active():
            try:
                turn = next(search)
            except StopIteration as end:
                found[number], turn = end.value, levels
            else:
                waiting.append(number)
        done[number] = done[number] if turn is None else turn
        while told < min(done):
            told += 1
            on_level(told)
    return [found[number] for number in range(len(searches))]
