"""Server-Sent Events, read from the lines of an answer.

Nothing but the standard library. This module does not know what an event means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orfeas_client.errors import UnexpectedAnswer

_LONGEST_EVENT = 16 << 20


@dataclass(frozen=True)
class ServerEvent:
    """One event; id : what a stream that is opened again is told, "" for none."""

    name: str
    data: str
    id: str = ""


def read_events(lines: Iterable[bytes]) -> Iterator[ServerEvent]:
    """Give the events that some lines make, each once it is whole. Raises UnexpectedAnswer for one that never ends."""
    name, id, data, size = "message", "", list[str](), 0
    for raw in lines:
        line = raw.decode("utf-8", "replace")
        if not line:
            if data:
                yield ServerEvent(name, "\n".join(data), id)
            name, data, size = "message", [], 0
            continue
        size += len(line)
        if size > _LONGEST_EVENT:
            raise UnexpectedAnswer("An event is far longer than any that an ORFEAS service sends.")
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id":
            id = value
