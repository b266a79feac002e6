"""What the protocol's own conformance suite says of /mcp: part of `make outside`; writes results/mcp_conformance.md.

    python -m benchmarks.mcp_conformance

Most of the suite's scenarios ask for tools, prompts and resources of a server made for it. Those that any server can be
asked are run, against a web process without a worker that lets this machine in without a key. The suite wants a newer
Node than distributions have: npm brings that, too. Ends with 1 where a check fails.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.support.ports import free_port

_ROOT = Path(__file__).parents[1]
_RESULT = _ROOT / "benchmarks" / "results" / "mcp_conformance.md"
_INSTALLED = _ROOT / "build" / "mcp-conformance"
_SUITE, _NODE = "@modelcontextprotocol/conformance@0.1.16", "node@22.23.3"
_SCENARIOS = ("server-initialize", "ping", "tools-list", "dns-rebinding-protection")
_PASSED = re.compile(r"Passed: (\d+)/(\d+), (\d+) failed, (\d+) warnings")
_START_SECONDS, _SCENARIO_SECONDS = 60.0, 60


@dataclass(frozen=True)
class Outcome:
    """What became of a scenario: checks that passed, of how many, and warnings."""

    scenario: str
    passed: int
    checks: int
    warnings: int

    @property
    def is_good(self) -> bool:
        """Whether something was checked, and all of it passed."""
        return 0 < self.checks == self.passed


def install() -> None:
    """Have npm bring the suite and its Node, once."""
    if not (_INSTALLED / "node_modules" / ".bin" / "conformance").exists():
        _INSTALLED.mkdir(parents=True, exist_ok=True)
        subprocess.run(  # noqa: S603
            ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(_INSTALLED), _NODE, _SUITE],  # noqa: S607
            check=True,
            stdout=sys.stderr,
        )


@contextmanager
def served() -> Iterator[str]:
    """Give the address of /mcp of a web process without a worker."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        settings = {"AGENT_AUTH_ENABLED": "false", "WORKER_ENABLED": "false", "PORT": str(port)}
        environment = {**os.environ, **settings, "ORFEAS_DATA_DIR": folder, "LOG_LEVEL": "ERROR"}
        process = subprocess.Popen([sys.executable, "-m", "backend.serve"], cwd=_ROOT, env=environment)
        try:
            _wait_until_up(f"http://127.0.0.1:{port}/api/agent/health/live")
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_up(url: str) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310  an address of this machine
            return
        except (urllib.error.URLError, OSError):
            if time.monotonic() >= until:
                raise
            time.sleep(0.2)


def ask(scenario: str, url: str) -> Outcome:
    """Run a scenario against a server."""
    binaries = _INSTALLED / "node_modules" / ".bin"
    done = subprocess.run(  # noqa: S603
        [binaries / "conformance", "server", "--url", url, "--scenario", scenario],
        env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"},
        cwd=_INSTALLED,
        check=False,
        capture_output=True,
        text=True,
        timeout=_SCENARIO_SECONDS,
    )
    found = _PASSED.search(done.stdout)
    if found is None:
        return Outcome(scenario, 0, 0, 0)
    passed, checks, _failed, warnings = map(int, found.groups())
    return Outcome(scenario, passed, checks, warnings)


def report(outcomes: list[Outcome]) -> str:
    """Return the table, as markdown."""
    rows = []
    for each in outcomes:
        verdict = "yes" if each.is_good else "**no**"
        rows.append(f"| {each.scenario} | {each.passed} of {each.checks} | {each.warnings} | {verdict} |")
    lines = [
        "# The Model Context Protocol's conformance suite",
        "",
        f"`make outside`, {datetime.now(UTC):%Y-%m-%d}: {_SUITE}, {_NODE}, against `/mcp` of a web process. The other "
        "scenarios of the suite ask for tools, prompts and resources of a server that was made for it, or for "
        "sessions, which `/mcp` does not have.",
        "",
        "| scenario | checks that passed | warnings | as it should be |",
        "|---|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Install the suite, run it, write the table; the exit code."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    install()
    with served() as url:
        outcomes = [ask(scenario, url) for scenario in _SCENARIOS]
    text = report(outcomes)
    print(text)
    _RESULT.write_text(text, "utf-8")
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
