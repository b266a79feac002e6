"""One memory in which the processes of a service count, so that any of them can show the sum.

It is made before they are forked, has no name and no file: no disk can be full of it, and it is gone with the last
process. Each process has a slot that it alone writes; one that takes a dead one's slot goes on with its numbers, so
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

_SLOT_WORDS = 1 << 16
"""Words of 8 bytes that a slot has, 512 KiB: some 4000 numbers, ten times what all routes and error codes make."""

logger = logging.getLogger(__name__)


class SharedTable:
    """The memory, with a slot for each process.

    A slot is a word that says how many are used after it, then one number after another: the length of its key in
    bytes, the key in whole words, and the number itself, a double that is written in one piece.
    """

    def __init__(self, slots: int) -> None:
        """Take the memory, of which the system gives only what is written to."""
        self.slots = slots
        # Aligned words are read and written whole, so that nobody ever reads half a number.
        self._bytes = memoryview(mmap.mmap(-1, 8 * slots * _SLOT_WORDS))
        self._words = self._bytes.cast("Q")
        self._numbers = self._bytes.cast("d")

    def free_slot(self, taken: Collection[int]) -> int | None:
        """Return the first slot that nobody has; None when there is none."""
        return next((slot for slot in range(self.slots) if slot not in taken), None)

    def entries(self, slot: int) -> Iterator[tuple[Key, int]]:
        """Yield the keys in a slot, each with the word its number is in."""
        start = slot * _SLOT_WORDS
        at, end = start + 1, start + 1 + self._words[start]
        while at < end:
            length = self._words[at]
            try:
                key = tuple(json.loads(bytes(self._bytes[8 * (at + 1) : 8 * (at + 1) + length])))
            except ValueError:
                # Another processor has seen that there is one more before it sees what; it is read the next time.
                return
            at += 1 + _words_of(length)
            yield key, at
            at += 1

    def number(self, at: int) -> float:
        """Return the number in a word."""
        return self._numbers[at]

    def grow(self, at: int, amount: float) -> None:
        """Let a number grow; only for the process whose slot it is in."""
        self._numbers[at] += amount

    def append(self, slot: int, key: Key) -> int | None:
        """Begin a new number in a slot; return the word it is in, None when it does not fit.

        Only for the process whose slot it is.
        """
        name = json.dumps(key).encode()
        start = slot * _SLOT_WORDS
        at = start + 1 + self._words[start]
        number_at = at + 1 + _words_of(len(name))
        if number_at >= start + _SLOT_WORDS:
            return None
        self._words[at] = len(name)
        self._bytes[8 * (at + 1) : 8 * (at + 1) + len(name)] = name
        self._numbers[number_at] = 0.0
        # Last: what is not counted in does not exist for anybody, should this process die here.
        self._words[start] = number_at - start
        return number_at


class SharedCounts:
    """Count in the table for one process, as counters.Counts says; what has no room is logged once and not counted."""

    def __init__(self, table: SharedTable, slot: int | None) -> None:
        """Count in a slot.

        slot : this process's alone; without one this shows what the others count, and counts nothing
        """
        self._table = table
        self.slot = slot
        self._lock = threading.Lock()
        self._at: dict[Key, int] = {} if slot is None else dict(table.entries(slot))
        self._is_reported = False

    def add(self, steps: Iterable[Step]) -> None:
        """As Counts says."""
        with self._lock:
            for key, amount in steps:
                at = self._at.get(key)
                if at is None:
                    at = self._begin(key)
                if at is not None:
                    self._table.grow(at, amount)

    def totals(self) -> Mapping[Key, float]:
        """Return the sums over all processes, those that have died too."""
        totals: dict[Key, float] = defaultdict(float)
        for slot in range(self._table.slots):
            for key, at in self._table.entries(slot):
                totals[key] += self._table.number(at)
        return totals

    def _begin(self, key: Key) -> int | None:
        at = None if self.slot is None else self._table.append(self.slot, key)
        if at is not None:
            self._at[key] = at
        elif not self._is_reported:
            self._is_reported = True
            logger.warning("There is no room to count %s; /metrics leaves it out, and what else is new here.", key)
        return at


def _words_of(length: int) -> int:
    """Return the whole words that so many bytes take."""
    return -(-length // 8)
