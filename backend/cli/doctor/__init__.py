"""`orfeas doctor`: looks at this machine and the settings, and says in a sentence each what is wrong and what to do.

Exit codes: 0 all is well; 1 something is wrong. This module does not know how anything is looked at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TextIO

from backend.cli.doctor.checks import Check, Finding, WrongError, examine
from backend.cli.doctor.environment import ReadSettings, read_settings
from backend.config import Settings

WELL, WRONG = 0, 1
_TORCH_SECONDS = 60.0
_SHARED = ("settings", "python", "memory", "disk", "data folder", "database", "redis", "files", "clock")
PARTS: Mapping[str, tuple[str, ...]] = {
    "web": (*_SHARED, "agents", "port"),
    "worker": (*_SHARED, "torch", "device", "checkpoint", "previews", "metrics port"),
    "backup": ("settings", "disk", "database", "files", "agents"),
    "proxy": ("settings",),
}
"""What each part of an installation needs of the machine."""


def run(arguments: Sequence[str], environ: Mapping[str, str], output: TextIO) -> int:
    """Look at everything, write the findings, and return the exit code."""
    options = _parser().parse_args(arguments)
    findings = examine(checks(read_settings(environ), options.part))
    output.write(_json(findings) if options.json else _lines(findings))
    return WELL if all(finding.ok for finding in findings) else WRONG


def checks(read: ReadSettings, part: str | None = None) -> list[Check]:
    """Return what is to be looked at where these settings hold; of one part, what it needs."""
    every = _machine_checks(read)
    if part is None:
        return every
    named = PARTS[part]
    return [check for check in every if check.name in named] + _part_checks(read.settings, part)


def _machine_checks(read: ReadSettings) -> list[Check]:
    # Here, so that `orfeas doctor --help` waits for no database's library.
    from backend.cli.doctor import clock, machine, ports, stores

    settings = read.settings

    return [
        Check("settings", partial(_report_settings, read)),
        Check("python", machine.look_at_python),
        Check("torch", partial(machine.look_at_torch, settings), _TORCH_SECONDS),
        Check("device", partial(machine.look_at_device, settings), _TORCH_SECONDS),
        Check("checkpoint", partial(machine.look_at_checkpoint, settings), _TORCH_SECONDS),
        Check("previews", machine.look_at_previews),
        Check("memory", machine.look_at_memory),
        Check("disk", partial(machine.look_at_disk, settings)),
        Check("data folder", partial(stores.look_at_data_folder, settings)),
        Check("agents", partial(stores.look_at_agents, settings)),
        Check("database", partial(stores.look_at_database, settings)),
        *_redis_checks(settings),
        Check("files", partial(stores.look_at_files, settings), 20.0),
        Check("port", partial(ports.look_at_port, settings)),
        Check("metrics port", partial(ports.look_at_metrics_port, settings)),
        Check("clock", partial(clock.look_at_clock, settings)),
    ]


def _part_checks(settings: Settings, part: str) -> list[Check]:
    from backend.cli.doctor import parts

    looks = {
        "worker": ("broker", parts.look_at_broker),
        "backup": ("programs", parts.look_at_backup_programs),
        "proxy": ("proxy", parts.look_at_proxy),
    }
    return [Check(looks[part][0], partial(looks[part][1], settings), 20.0)] if part in looks else []


def _redis_checks(settings: Settings) -> list[Check]:
    from backend.cli.doctor import stores

    return [
        Check("redis", partial(stores.look_at_redis, url, variables))
        for url, variables in stores.redis_addresses(settings).items()
    ]


def _report_settings(read: ReadSettings) -> str:
    if read.problems:
        raise WrongError(" ".join(read.problems))
    return "Every setting can be used."


def _lines(findings: Sequence[Finding]) -> str:
    width = max(len(finding.name) for finding in findings)
    rows = [f"{'ok   ' if one.ok else 'wrong'}  {one.name.ljust(width)}  {one.message}\n" for one in findings]
    wrong = sum(not finding.ok for finding in findings)
    return "".join(rows) + (f"\n{wrong} of {len(findings)} are wrong.\n" if wrong else "\nAll is well.\n")


def _json(findings: Sequence[Finding]) -> str:
    told = [{"name": finding.name, "ok": finding.ok, "message": finding.message} for finding in findings]
    return json.dumps({"ok": all(finding.ok for finding in findings), "checks": told}, indent=2) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orfeas doctor",
        description="Look at this machine and the settings, and say in a sentence each what is wrong and what to do.",
        epilog="Exit codes: 0 all is well, 1 something is wrong.",
    )
    parser.add_argument(
        "--part",
        choices=PARTS,
        help="only what this part needs, and what it alone needs: a worker its broker, a backup its programs, agents "
        "their way through the proxy at PUBLIC_URL",
    )
    parser.add_argument("--json", action="store_true", help="findings as JSON")
    return parser
