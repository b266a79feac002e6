"""What the two dashboards show: each panel's title, unit and expressions, as values.

`$__rate_interval` is Grafana's: some scrapes long, whatever the range on the screen. This module does not know Grafana.
"""

from __future__ import annotations

from dataclasses import dataclass

RATE = "$__rate_interval"


@dataclass(frozen=True)
class Query:
    """One expression, and what its lines are called: `{{label}}` stands for a label's value."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One picture; text : what to read from it; unit : as Grafana calls it; most : the upper end of its axis."""

    title: str
    text: str
    unit: str
    queries: tuple[Query, ...]
    most: float | None = None


@dataclass(frozen=True)
class Board:
    """A dashboard: rows of panels, each with its title; uid : stays, since links and alerts name it."""

    uid: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in their order."""
        return tuple(panel for _, panels in self.rows for panel in panels)


def _quantiles(metric: str, by: str, selector: str = "") -> tuple[Query, ...]:
    groups = f"le, {by}" if by else "le"
    name = f" {{{{{by}}}}}" if by else ""
    return tuple(
        Query(
            f"histogram_quantile({share}, sum by ({groups}) (rate({metric}_bucket{selector}[{RATE}])))",
            f"{percent}{name}",
        )
        for share, percent in ((0.5, "median"), (0.99, "99 %"))
    )


_CALLS = (
    Panel(
        "Answers a second",
        "By status. 429 are limits, 503 a worker, the queue or a store that is away.",
        "reqps",
        (Query(f"sum by (status) (rate(orfeas_requests_total[{RATE}]))", "{{status}}"),),
    ),
    Panel(
        "Refusals a second, by code",
        "docs/errors.md says what each means and who can do something about it.",
        "reqps",
        (Query(f'sum by (code) (rate(orfeas_requests_total{{code!=""}}[{RATE}]))', "{{code}}"),),
    ),
    Panel(
        "Time to first byte",
        "From a request's whole head until its answer begins; small calls are those that are answered at once.",
        "s",
        _quantiles("orfeas_first_byte_seconds", "kind"),
    ),
    Panel(
        "Seconds to an answer, 99 %, by route",
        "Waits (?wait=, async=false) count in full.",
        "s",
        (
            Query(
                f"histogram_quantile(0.99, sum by (le, route) (rate(orfeas_request_seconds_bucket[{RATE}])))",
                "{{route}}",
            ),
        ),
    ),
)
_QUEUE = (
    Panel(
        "Jobs",
        "Everybody's: each web machine reads them from the job table.",
        "short",
        (Query("max(orfeas_queue_jobs)", "wait"), Query("max(orfeas_active_jobs)", "run")),
    ),
    Panel(
        "Age of the oldest job that waits",
        "Alert OrfeasQueueStands looks at this.",
        "s",
        (Query("max(orfeas_queue_oldest_seconds)", "oldest"),),
    ),
    Panel(
        "Runs that ended, a minute",
        "RELEASED wait again; DIED are runs whose process was lost.",
        "short",
        (Query(f"60 * sum by (outcome) (rate(orfeas_runs_total[{RATE}]))", "{{outcome}}"),),
    ),
    Panel(
        "Jobs that failed, in an hour",
        "By code; NO_FOREGROUND, NO_SURFACE and INVALID_IMAGE are the picture's.",
        "short",
        (Query("sum by (code) (increase(orfeas_job_failures_total[1h]))", "{{code}}"),),
    ),
    Panel("Seconds by stage, median and 99 %", "Those of the model count for the whole batch.", "s",
          _quantiles("orfeas_stage_seconds", "stage")),
    Panel(
        "Batch fill",
        "Images in device calls of those that had room: low with a queue means jobs that may not run together.",
        "percentunit",
        (
            Query(
                f"sum(rate(orfeas_batch_size_sum[{RATE}])) / sum(rate(orfeas_batch_capacity_total[{RATE}]))",
                "filled",
            ),
        ),
        1.0,
    ),
)  # fmt: skip
_PARTS = (
    Panel(
        "Workers",
        "By what they say of themselves.",
        "short",
        (Query("max by (status) (orfeas_workers)", "{{status}}"),),
    ),
    Panel(
        "What answers a scrape",
        "1 for each part that Prometheus reaches, and for the job table as web processes reach it; 1 for a full disk.",
        "short",
        (
            Query("up", "{{job}} {{instance}}"),
            Query("min(orfeas_store_up)", "job table"),
            Query("max by (instance) (orfeas_disk_full)", "disk full {{instance}}"),
        ),
    ),
    Panel(
        "Webhooks to be sent",
        "Those that wait to be tried again are among them: a receiver that is away is no fault of ours.",
        "short",
        (Query("max(orfeas_webhooks_pending)", "to be sent"),),
    ),
    Panel(
        "For how long a webhook is due that nobody sends",
        "Alert OrfeasWebhooksStand looks at this.",
        "s",
        (Query("max(orfeas_webhooks_overdue_seconds)", "overdue"),),
    ),
    Panel(
        "Memory of a process",
        "Of single processes and workers; several web processes of a machine show none.",
        "bytes",
        (Query('process_resident_memory_bytes{job=~"orfeas.*"}', "{{job}} {{instance}}"),),
    ),
    Panel(
        "Refused by rate limits, a minute",
        "By route.",
        "short",
        (Query(f"60 * sum by (route) (rate(orfeas_rate_limited_total[{RATE}]))", "{{route}}"),),
    ),
)

SERVICE = Board("orfeas-service", "ORFEAS: service", (("Calls", _CALLS), ("Jobs", _QUEUE), ("Parts", _PARTS)))

_BY_GPU = "max by (instance, gpu, uuid)"
_GPU = "{{instance}} GPU {{gpu}}"

_WORK = (
    Panel(
        "Busy share of the device",
        "Of the time in which jobs waited or ran, the part in which a batch's work was on the device.",
        "percentunit",
        (
            Query(
                f"sum by (instance) (rate(orfeas_device_busy_seconds_total[{RATE}])) / "
                f"(sum by (instance) (rate(orfeas_device_wanted_seconds_total[{RATE}])) > 0)",
                "{{instance}}",
            ),
            Query("max by (instance) (orfeas_device_busy_share)", "{{instance}} since its start"),
        ),
        1.0,
    ),
    Panel(
        "Images a minute",
        "Through device calls, by worker.",
        "short",
        (Query(f"60 * sum by (instance) (rate(orfeas_batch_size_sum[{RATE}]))", "{{instance}}"),),
    ),
    Panel(
        "Images in a device call",
        "The mean, by worker.",
        "short",
        (
            Query(
                f"sum by (instance) (rate(orfeas_batch_size_sum[{RATE}])) / "
                f"(sum by (instance) (rate(orfeas_batch_size_count[{RATE}])) > 0)",
                "{{instance}}",
            ),
        ),
    ),
    Panel("Seconds on the device, by stage", "Of a batch.", "s",
          _quantiles("orfeas_stage_seconds", "stage", '{stage=~"encode|sample|decode"}')),
)  # fmt: skip
_CARD = (
    Panel("Utilisation", "As the driver sees it: part of the last moment in which any kernel ran.", "percentunit",
          (Query(f"{_BY_GPU} (orfeas_gpu_utilization_ratio)", _GPU),), 1.0),
    Panel("Memory", "Of all who use the GPU.", "bytes",
          (Query("max by (instance, gpu, uuid, kind) (orfeas_gpu_memory_bytes)", f"{_GPU} {{{{kind}}}}"),)),
    Panel("Memory as the workers report it", "What this service may take; read from the job table.", "bytes",
          (Query("max by (worker, kind) (orfeas_device_memory_bytes)", "{{worker}} {{kind}}"),)),
    Panel("Power", "Drawn, and the limit.", "watt",
          (Query("max by (instance, gpu, uuid, kind) (orfeas_gpu_power_watts)", f"{_GPU} {{{{kind}}}}"),)),
    Panel("Temperature", "Alert OrfeasGpuHot looks at this.", "celsius",
          (Query(f"{_BY_GPU} (orfeas_gpu_temperature_celsius)", _GPU),)),
    Panel("Clocks", "A GPU that is too hot, or at its power limit, slows down.", "hertz",
          (Query("max by (instance, gpu, uuid, clock) (orfeas_gpu_clock_hertz)", f"{_GPU} {{{{clock}}}}"),)),
)  # fmt: skip

GPUS = Board("orfeas-gpus", "ORFEAS: GPUs", (("Work", _WORK), ("Cards", _CARD)))

BOARDS = (SERVICE, GPUS)
