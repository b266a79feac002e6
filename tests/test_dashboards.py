"""deploy/grafana and deploy/prometheus, by Debian's Prometheus: every alert fires and clears, each panel has its lines.

The service is the real one, web and worker apart, with PostgreSQL and Redis; a fake stands in the model's place, and
one below NVIDIA's library. Alerts look at the last seconds here where they look at minutes in use; promtool goes
through their real lengths of time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.support.ports import free_port
from benchmarks.support.postgres import PostgresCluster
from benchmarks.support.programs import require
from benchmarks.support.prometheus import Prometheus
from deploy.grafana.make_dashboards import json_of, path_of
from deploy.grafana.panels import BOARDS, Board
from tests.support.faults.harness import FAKE_WORKER, Process
from tests.support.hostile_pictures import good_png
from tests.support.redis_backend import redis_server
from tests.support.running import REPOSITORY, RunningService

ALERTS = REPOSITORY / "deploy" / "prometheus" / "alerts.yml"
INSTALL = REPOSITORY / "benchmarks" / "support" / "install.sh"
SECONDS = 90.0


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def promtool(*arguments: str) -> None:
    require(INSTALL)
    program = ["/usr/bin/promtool", *arguments]
    done = subprocess.run(program, cwd=ALERTS.parent, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_each_alert_from_quiet_to_firing_to_quiet() -> None:
    promtool("check", "rules", "alerts.yml")
    promtool("test", "rules", "alerts.test.yml")
    tested = ALERTS.with_name("alerts.test.yml").read_text()
    assert [rule["alert"] for rule in rules() if rule["alert"] not in tested] == []


def test_promtool_reads_the_configuration() -> None:
    promtool("check", "config", "--syntax-only", "prometheus.yml")


def test_each_alert_says_what_to_do() -> None:
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "runbook"}, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_the_dashboards_that_are_committed_are_those_of_the_code(board: Board) -> None:
    assert path_of(board).read_text() == json_of(board), "python -m deploy.grafana.make_dashboards"


def quick(folder: Path) -> Path:
    """Return the alerts with seconds for minutes."""
    text = ALERTS.read_text()
    text = re.sub(r"\[\d+[mh]\]", "[6s]", text)
    text = re.sub(r"(?m)^(\s+for:) \S+$", r"\1 1s", text)
    text = text.replace("orfeas_queue_oldest_seconds) > 300", "orfeas_queue_oldest_seconds) > 3")
    path = folder / "alerts.yml"
    path.write_text(text)
    return path


@dataclass(frozen=True)
class Watched:
    """A service of two processes, and a Prometheus that watches both."""

    web: RunningService
    worker: Process
    postgres: PostgresCluster
    prometheus: Prometheus
    gpu: Path

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"{what}; firing: {self.prometheus.firing()}\n{self.web.log_tail}"
            time.sleep(0.2)

    def expect_firing(self, *alerts: str) -> None:
        seen: set[str] = set()

        def all_seen() -> bool:
            seen.update(self.prometheus.firing())
            return set(alerts) <= seen

        self.until(all_seen, f"never seen of {alerts}: {set(alerts) - seen}")

    def expect_quiet(self) -> None:
        self.until(lambda: not self.prometheus.firing(), "never quiet")


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    postgres, redis, gpu, port = PostgresCluster(), redis_server(), folder / "gpu.json", free_port()
    settings: dict[str, Any] = {
        "DATABASE_URL": postgres.url, "CELERY_BROKER_URL": redis.url, "WORKER_ENABLED": "false",
        "LEASE_SECONDS": 5, "MAX_ATTEMPTS": 1, "SWEEP_SECONDS": 1, "SYNC_WAIT": 0,
    }  # fmt: skip
    web = RunningService(folder, **settings)
    own = {"ORFEAS_DATA_DIR": web.data, "METRICS_PORT": port, "FAKE_STEP_SECONDS": 0.02, "FAKE_GPU": gpu}
    environment = {name: str(value) for name, value in {**settings, **own}.items()}
    environment["PYTHONPATH"] = f"{REPOSITORY / 'benchmarks' / 'support' / 'fake_nvml'}:{REPOSITORY}"
    worker = Process(FAKE_WORKER, environment, folder / "worker.log")
    targets = {"orfeas-web": [f"127.0.0.1:{web.port}"], "orfeas-worker": [f"127.0.0.1:{port}"]}
    prometheus = Prometheus(targets, quick(folder))
    try:
        postgres.start()
        worker.start()
        web.start(health=200)
        prometheus.start()
        yield Watched(web, worker, postgres, prometheus, gpu)
    finally:
        prometheus.destroy()
        web.kill()
        worker.kill_all()
        postgres.destroy()


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("ALERTS") != "live", reason="its seconds want a machine with nothing else to do: make alerts"
)
def test_each_alert_fires_and_clears_and_each_panel_has_its_lines(tmp_path: Path) -> None:
    with watched(tmp_path) as stack:
        # Two readings of the quiet service: what grows is seen only from a number that was there before.
        stack.until(lambda: bool(stack.prometheus.query("min_over_time(up[3s]) > 0")), "nothing is scraped")
        time.sleep(2.5)
        make_meshes(stack)
        expect_lines(stack)
        break_the_gpu_and_the_worker(stack)
        break_the_database(stack)
        stack.expect_quiet()


def make_meshes(stack: Watched) -> None:
    for _ in range(3):
        answers = [stack.web.generate(good_png(), async_="true", color="none") for _ in range(4)]
        for answer in answers:
            stack.web.wait(answer.json()["job_id"])


def expect_lines(stack: Watched) -> None:
    """Every expression of every panel, as Grafana would ask: none in error, none without a line."""
    for board in BOARDS:
        for panel in board.panels:
            for query in panel.queries:
                expression = query.expression.replace("$__rate_interval", "20s")
                lines = stack.prometheus.query(expression)
                assert lines, f"{board.title}, {panel.title}: {expression}"
                named = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
                assert all(named <= line.labels.keys() for line in lines), f"{panel.title}: {query.legend}"


def break_the_gpu_and_the_worker(stack: Watched) -> None:
    """Heat and fill the one, and kill the other in mid-run: nobody takes its place, and what was accepted waits."""
    stack.gpu.write_text(json.dumps({"celsius": 91, "used": 80 << 30}))
    run = stack.web.generate(good_png(), async_="true", color="none", steps=100).json()["job_id"]
    stack.web.wait(run, until=["processing"])
    stack.web.generate(good_png(), async_="true", color="none", steps=10)
    stack.expect_firing("OrfeasGpuHot", "OrfeasGpuMemoryFull")
    stack.worker.kill_all()
    stack.gpu.unlink()
    stack.until(lambda: stack.web.generate(good_png()).refusal == (503, "GPU_BUSY"), "jobs are still taken")
    stack.expect_firing(
        "OrfeasDown", "OrfeasNoWorker", "OrfeasQueueStands", "OrfeasRefusesJobs", "OrfeasRunsDie", "OrfeasJobsFail"
    )
    stack.worker.start()


def break_the_database(stack: Watched) -> None:
    stack.postgres.stop()
    assert stack.web.get("/jobs").status == 503
    stack.expect_firing("OrfeasStoreAway", "OrfeasServerErrors")
    stack.postgres.start()
