"""`orfeas`: the one command, whose subcommands are the programs of the service.

A subcommand's module is imported when it is chosen, so that `orfeas --help` waits for none of them. This module does
not know what the subcommands do.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backend import __version__

_Run = Callable[[Sequence[str], Mapping[str, str]], int]


@dataclass(frozen=True)
class Command:
    """A subcommand. run : takes its arguments and the environment, gives the exit code."""

    help: str
    run: _Run


def main() -> int:
    """Run the command line on this process's arguments and environment; return its exit code."""
    from backend.hunyuan3d.device.thread_waiting import wait_asleep

    wait_asleep()
    return run(sys.argv[1:], os.environ)


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the command line asks; return the exit code. Raises SystemExit for a subcommand that is not there."""
    options = _parser().parse_args(arguments[:1])
    command: Command = options.command
    return command.run(arguments[1:], environ)


def _serve(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    from backend.serve import run

    return run(arguments, environ, sys.stdout)


def _worker(arguments: Sequence[str], _environ: Mapping[str, str]) -> int:
    argparse.ArgumentParser(
        prog="orfeas worker", description="Run jobs on one device, woken through CELERY_BROKER_URL."
    ).parse_args(arguments)
    try:
        from backend.worker import main
    except ModuleNotFoundError as missing:
        sys.stderr.write(
            f"A worker needs the package {missing.name}: run `make cluster` in a checkout, or pip install "
            "'orfeas[cluster]'.\n"
        )
        return 2
    return main()


def _generate(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    from backend.cli.generate import main
    from backend.hunyuan3d.device.malloc import prepare_malloc

    prepare_malloc()
    return main(arguments, environ=environ)


def _demo(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    from backend.demo import run_program

    return run_program(arguments, environ)


def _agents(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    from backend.auth.cli import run

    return run(arguments, environ, sys.stdout)


def _keys(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    from backend.cli.keys import run

    return run(arguments, environ, sys.stdout)


def _webhooks(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    from backend.cli.webhooks import run

    return run(arguments, environ, sys.stdout)


def _studio(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    from backend.cli.studio import run

    return run(arguments, environ, sys.stdout)


def _migrate(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    from backend.cli.migrate import run

    return run(arguments, environ, sys.stdout)


def _backup(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    from backend.cli.backup import run_backup

    return run_backup(arguments, environ, sys.stdout)


def _restore(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    from backend.cli.backup import run_restore

    return run_restore(arguments, environ, sys.stdout)


def _doctor(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    from backend.cli.doctor import run

    return run(arguments, environ, sys.stdout)


COMMANDS: Mapping[str, Command] = {
    "serve": Command("serve agents over HTTP, and run their jobs", _serve),
    "worker": Command("run the jobs of web processes elsewhere on this machine's device", _worker),
    "generate": Command("make meshes of pictures here, without a service", _generate),
    "demo": Command("start the service, send it pictures, fetch and draw their meshes, stop it", _demo),
    "agents": Command("add, list, rotate, disable, enable and remove agents; give them tokens", _agents),
    "keys": Command("change the key that links to files are signed with", _keys),
    "webhooks": Command("list what was sent to agents' webhooks, and send it again", _webhooks),
    "studio": Command("print an address that opens the studio in a browser of this machine", _studio),
    "migrate": Command("bring the database to this version's schema", _migrate),
    "backup": Command("copy all that outlives this machine into one folder, while the service runs", _backup),
    "restore": Command("put such a copy into empty places, before the service starts there", _restore),
    "doctor": Command("look at this machine and the settings; say what is wrong and what to do", _doctor),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orfeas",
        description="Pictures in, meshes out, for agents.",
        epilog="`orfeas COMMAND --help` shows a command's options. The settings are environment variables: README.md.",
    )
    parser.add_argument("--version", action="version", version=f"orfeas {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        # The subcommand reads its own options, --help among them.
        commands.add_parser(name, help=command.help, add_help=False).set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
