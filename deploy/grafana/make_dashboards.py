"""Write the dashboards' JSON, from the panels in `panels.py`.

    python -m deploy.grafana.make_dashboards

What it writes is committed: Grafana reads it as it is. This module does not know what is shown.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from deploy.grafana.panels import BOARDS, Board, Panel

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = "prometheus"
"""The data source's uid, which provisioning/datasources gives it."""
_WIDTH, _HEIGHT = 12, 8


def path_of(board: Board) -> Path:
    """Return where a dashboard is kept."""
    return FOLDER / f"{board.uid}.json"


def json_of(board: Board) -> str:
    """Return a dashboard as Grafana reads it."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .tags(["orfeas"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .readonly()
    )
    number = itertools.count(1).__next__
    for title, panels in board.rows:
        made = made.with_row(dashboard.Row(title).id(number()))
        for panel in panels:
            made = made.with_panel(_built(panel).id(number()))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _built(panel: Panel) -> timeseries.Panel:
    source = DataSourceRef(type_val="prometheus", uid=SOURCE)
    legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.text)
        .unit(panel.unit)
        .min(0)
        .span(_WIDTH)
        .height(_HEIGHT)
        .legend(legend)
        .datasource(source)
    )
    if panel.most is not None:
        built = built.max(panel.most)
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(chr(65 + number))
        built = built.with_target(target)
    return built


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for board in BOARDS:
        path_of(board).write_text(json_of(board), encoding="utf-8")


if __name__ == "__main__":
    main()
