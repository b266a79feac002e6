"""One memory in which the processes of a service count, so that any of them can tell the sum.

It is made before they are forked, has no name and no file: no disk can be full of it, and it is gone with the last
process. Each process has a place that it alone writes; one that takes a dead one's place goes on with its numbers, so
none ever falls. This module does not know what is counted.
"""

from __future__ import annotations

import json
import logging
import mmap
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from backend.telemetry.counters import Key, Step

_PLACE_WORDS = 1 << 16
"""Words of 8 bytes that a place has, 512 KiB: some 4000 numbers, ten times what all routes and error codes make."""

logger = logging.getLogger(__name__)


class SharedTable:
    """The memory, with a place for each process.

    A place is a word that says how many are used after it, then one number after another: the length of its key in
    bytes, the key in whole words, and the number itself, a double that is written in one piece.
    """

    def __init__(self, places: int) -> None:
        """Takes the memory; the system gives what is written to only."""
        self.places = places
        # Aligned words are read and written whole, so that nobody ever reads half a number.
        self._bytes = memoryview(mmap.mmap(-1, 8 * places * _PLACE_WORDS))
        self._words = self._bytes.cast("Q")
        self._numbers = self._bytes.cast("d")

    def free_place(self, taken: Collection[int]) -> int | None:
        """The first place that nobody has; None when there is none."""
        return next((place for place in range(self.places) if place not in taken), None)

    def entries(self, place: int) -> Iterator[tuple[Key, int]]:
        """The keys in a place, each with the word its number is in."""
        start = place * _PLACE_WORDS
        at, end = start + 1, start + 1 + self._words[start]
        while at < end:
            length = self._words[at]
            try:
                key = tuple(json.loads(bytes(self._bytes[8 * (at + 1) : 8 * (at + 1) + length])))
            except ValueError:
                # Another processor has seen that there is one more before it sees what; it is told the next time.
                return
            at += 1 + _words_of(length)
            yield key, at
            at += 1

    def number(self, at: int) -> float:
        """The number in a word."""
        return self._numbers[at]

    def grow(self, at: int, amount: float) -> None:
        """Let it grow; for who has the place."""
        self._numbers[at] += amount

    def append(self, place: int, key: Key) -> int | None:
        """A new number, 0, in a place: the word it is in; None when it does not fit. For who has the place."""
        name = json.dumps(key).encode()
        start = place * _PLACE_WORDS
        at = start + 1 + self._words[start]
        number_at = at + 1 + _words_of(len(name))
        if number_at >= start + _PLACE_WORDS:
            return None
        self._words[at] = len(name)
        self._bytes[8 * (at + 1) : 8 * (at + 1) + len(name)] = name
        self._numbers[number_at] = 0.0
        # Last: what is not counted in does not exist for anybody, should this process die here.
        self._words[start] = number_at - start
        return number_at


class SharedCounts:
    """A process's way to the table; a counters.Counts. What has no room is not counted, and said once."""

    def __init__(self, table: SharedTable, place: int | None) -> None:
        """place : this process's alone; without one it tells what the others count, and counts nothing."""
        self._table = table
        self.place = place
        self._lock = threading.Lock()
        self._at: dict[Key, int] = {} if place is None else dict(table.entries(place))
        self._is_told = False

    def add(self, steps: Iterable[Step]) -> None:
        """See Counts."""
        with self._lock:
            for key, amount in steps:
                at = self._at.get(key)
                if at is None:
                    at = self._begin(key)
                if at is not None:
                    self._table.grow(at, amount)

    def totals(self) -> Mapping[Key, float]:
        """See Counts; all processes together, those that have died too."""
        totals: dict[Key, float] = defaultdict(float)
        for place in range(self._table.places):
            for key, at in self._table.entries(place):
                totals[key] += self._table.number(at)
        return totals

    def _begin(self, key: Key) -> int | None:
        at = None if self.place is None else self._table.append(self.place, key)
        if at is not None:
            self._at[key] = at
        elif not self._is_told:
            self._is_told = True
            logger.warning("There is no room to count %s; /metrics leaves it out, and what else is new here.", key)
        return at


def _words_of(length: int) -> int:
    """Whole words that so many bytes take."""
    return -(-length // 8)
