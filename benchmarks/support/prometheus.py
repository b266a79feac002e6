"""A Prometheus of its own, from Debian's package, that scrapes what it is told; its data are thrown away when it ends.

This module does not know what is scraped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.support.ports import free_port
from benchmarks.support.programs import require

_INSTALL = Path(__file__).with_name("install.sh")


class QueryFailed(RuntimeError):
    """Prometheus refused an expression, or found an error in carrying it out."""


@dataclass(frozen=True)
class Line:
    """One line of an answer: labels, times (seconds since 1970) and values."""

    labels: Mapping[str, str]
    times: tuple[float, ...]
    values: tuple[float, ...]


class Prometheus:
    """One server; `start` and `destroy`."""

    def __init__(
        self, targets: Mapping[str, Sequence[str]], rules: Path | None = None, *, interval: str = "1s"
    ) -> None:
        """Keep what it is to do. targets : addresses by job; rules : a file of rules; interval : of scrapes."""
        require(_INSTALL)
        self._folder = Path(tempfile.mkdtemp(prefix="orfeas-prometheus-"))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        jobs = [{"job_name": job, "static_configs": [{"targets": list(those)}]} for job, those in targets.items()]
        written = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "scrape_configs": jobs,
            "rule_files": [str(rules)] if rules else [],
        }
        self._config = self._folder / "prometheus.yml"
        self._config.write_text(yaml.safe_dump(written))

    def start(self, wait_seconds: float = 30) -> None:
        """Start it and wait until it answers."""
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [
                    *("setpriv", "--pdeathsig=KILL", "prometheus", f"--config.file={self._config}"),
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + wait_seconds
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Prometheus did not start: {(self._folder / 'log').read_text()}")
            time.sleep(0.1)

    def destroy(self) -> None:
        """End it and remove its data."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder)

    def query(self, expression: str) -> list[Line]:
        """Return what an expression gives now. Raises QueryFailed."""
        found = self._get("query", query=expression)
        return [Line(each["metric"], *_points([each["value"]])) for each in found["result"]]

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Line]:
        """Return what an expression gave from start to end, seconds since 1970. Raises QueryFailed."""
        found = self._get("query_range", query=expression, start=start, end=end, step=step)
        return [Line(each["metric"], *_points(each["values"])) for each in found["result"]]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire now."""
        return {each["labels"]["alertname"] for each in self._get("alerts")["alerts"] if each["state"] == "firing"}

    def _get(self, what: str, **parameters: object) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise QueryFailed(f"{parameters}: {error.read().decode()}") from error
        if answer["status"] != "success" or answer.get("warnings"):
            raise QueryFailed(f"{parameters}: {answer}")
        data: dict[str, Any] = answer["data"]
        return data

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False


def _points(values: Sequence[tuple[float, str]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(float(when) for when, _ in values), tuple(float(value) for _, value in values)
