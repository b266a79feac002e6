"""A metrics page as Prometheus's own parser reads it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def metric(text: bytes, name: str, **labels: str) -> float | None:
    """Return one sample's value, None when the page has none with that name and these labels."""
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return None
