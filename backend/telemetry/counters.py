"""Numbers that only grow, and the form in which Prometheus reads them.

A family says what is counted and under which labels; Counts keep the numbers, a Tally brings the two together. This
module does not know what is worth counting, or whether others add to the same numbers.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

Key = tuple[str, ...]
"""A number's name: its family's first, then what distinguishes it from the others of the family."""
Step = tuple[Key, float]
"""A number, and by how much it grows."""

_SUM = "sum"
_BEYOND = "+Inf"


class Counts(Protocol):
    """Keep numbers; called from any thread, quick, and never raises."""

    def add(self, steps: Iterable[Step]) -> None:
        """Let numbers grow; a new one begins at 0."""

    def totals(self) -> Mapping[Key, float]:
        """Return all numbers as they are now."""
        ...


class OwnCounts:
    """Keep the numbers of this process alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[Key, float] = defaultdict(float)

    def add(self, steps: Iterable[Step]) -> None:
        """As Counts says."""
        with self._lock:
            for key, amount in steps:
                self._numbers[key] += amount

    def totals(self) -> Mapping[Key, float]:
        """As Counts says."""
        with self._lock:
            return dict(self._numbers)


@dataclass(frozen=True)
class CounterFamily:
    """How often something happened; name : without the `_total` that Prometheus shows."""

    name: str
    text: str
    labels: tuple[str, ...] = ()

    def steps(self, *values: str, amount: float = 1.0) -> Iterator[Step]:
        """Yield the step for one more time, or for `amount` more; values : the labels', in their order."""
        yield (self.name, *values), amount

    def exported(self, totals: Mapping[Key, float]) -> CounterMetricFamily:
        """Return the family for Prometheus; without labels its number is there before it first happens."""
        family = CounterMetricFamily(self.name, self.text, labels=self.labels)
        found = {key[1:]: total for key, total in totals.items() if key[0] == self.name}
        for values, total in (found or ({} if self.labels else {(): 0.0})).items():
            family.add_metric(values, total)
        return family


@dataclass(frozen=True)
class HistogramFamily:
    """How large something was, each time; buckets : upper bounds, rising, without infinity."""

    name: str
    text: str
    buckets: tuple[float, ...]
    labels: tuple[str, ...] = ()

    def steps(self, size: float, *values: str) -> Iterator[Step]:
        """Yield the steps for this size, seen once; values : the labels', in their order."""
        bound = next((str(float(bound)) for bound in self.buckets if size <= bound), _BEYOND)
        yield (self.name, bound, *values), 1.0
        yield (self.name, _SUM, *values), size

    def exported(self, totals: Mapping[Key, float]) -> HistogramMetricFamily:
        """Return the family for Prometheus; without labels its numbers are there before it first happens."""
        family = HistogramMetricFamily(self.name, self.text, labels=self.labels)
        found: dict[Key, dict[str, float]] = {} if self.labels else {(): {}}
        for key, total in totals.items():
            if key[0] == self.name:
                found.setdefault(key[2:], {})[key[1]] = total
        for values, numbers in found.items():
            so_far, buckets = 0.0, []
            for bound in (*(str(float(bound)) for bound in self.buckets), _BEYOND):
                so_far += numbers.get(bound, 0.0)
                buckets.append((bound, so_far))
            family.add_metric(values, buckets, numbers.get(_SUM, 0.0))
        return family


@dataclass(frozen=True)
class ShareFamily:
    """One counter's part of another, from 0 to 1, since both began; without labels."""

    name: str
    text: str
    part: CounterFamily
    whole: CounterFamily

    def exported(self, totals: Mapping[Key, float]) -> GaugeMetricFamily:
        """Return the family for Prometheus; its number is there once the whole is more than 0."""
        family = GaugeMetricFamily(self.name, self.text)
        whole = totals.get((self.whole.name,), 0.0)
        if whole > 0:
            family.add_metric((), min(totals.get((self.part.name,), 0.0) / whole, 1.0))
        return family


Family = CounterFamily | HistogramFamily | ShareFamily
MetricFamily = CounterMetricFamily | HistogramMetricFamily | GaugeMetricFamily


class Tally(Collector):
    """Some families and their numbers, which are this process's own until they are shared."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = tuple(families)
        self._counts: Counts = OwnCounts()
        self._expected: dict[Key, float] = {}

    def expect(self, steps: Iterable[Step]) -> None:
        """Show numbers from now on that are 0 until they grow: an alert on growth sees no first growth from nothing."""
        self._expected.update((key, 0.0) for key, _ in steps)

    def share(self, counts: Counts) -> None:
        """Keep the numbers there from now on; those so far are forgotten."""
        self._counts = counts

    def add(self, steps: Iterable[Step]) -> None:
        """Let numbers grow, as Counts do."""
        self._counts.add(steps)

    def describe(self) -> Iterator[MetricFamily]:
        """Return the families, without their numbers."""
        return (family.exported({}) for family in self._families)

    def collect(self) -> Iterator[MetricFamily]:
        """Return the families as Prometheus wants them."""
        totals = {**self._expected, **self._counts.totals()}
        return (family.exported(totals) for family in self._families)
