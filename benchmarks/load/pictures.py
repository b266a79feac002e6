"""Draw the dashboards' panels from a Prometheus's own answers, for who has no Grafana at hand.

One picture for each dashboard, two panels in a row, as Grafana lays them out. This module does not know what was
measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.support.prometheus import Prometheus
from deploy.grafana.panels import BOARDS, Board, Panel

_WINDOW = "15s"
_MOST_LINES = 12


def draw(prometheus: Prometheus, begun: float, ended: float, folder: Path) -> list[Path]:
    """Write a PNG for each dashboard; begun, ended : seconds since 1970."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_draw(board, prometheus, begun, ended, folder / f"{board.uid}.png") for board in BOARDS]


def _draw(board: Board, prometheus: Prometheus, begun: float, ended: float, path: Path) -> Path:
    from matplotlib.figure import Figure

    rows = -(-len(board.panels) // 2)
    figure = Figure(figsize=(15, 3.4 * rows), layout="constrained")
    figure.suptitle(board.title, fontsize=15)
    for panel, axes in zip(board.panels, figure.subplots(rows, 2).flat, strict=False):
        _fill(axes, panel, prometheus, begun, ended)
    figure.savefig(path, dpi=80)
    return path


def _fill(axes: Any, panel: Panel, prometheus: Prometheus, begun: float, ended: float) -> None:
    lines = 0
    for query in panel.queries:
        expression = query.expression.replace("$__rate_interval", _WINDOW).replace("[1h]", "[60s]")
        for line in prometheus.query_range(expression, begun, ended, 2):
            label = _legend(query.legend, line.labels) if lines < _MOST_LINES else "_nolegend_"
            axes.plot([datetime.fromtimestamp(time, UTC) for time in line.times], line.values, label=label, linewidth=1)
            lines += 1
    axes.set_title(f"{panel.title} ({panel.unit})", fontsize=10, loc="left")
    axes.set_ylim(bottom=0, top=panel.most and panel.most * 1.02)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(fontsize=6, loc="upper left", ncols=2)


def _legend(text: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), text)
