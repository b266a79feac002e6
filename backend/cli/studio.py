"""`orfeas studio`: an address that opens the studio in a browser of this machine, without typing a key.

This module does not know what the address is made of.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TextIO

from backend.command import EPILOG, report
from backend.config import Settings


def run(arguments: Sequence[str], environ: Mapping[str, str], output: TextIO) -> int:
    """Do what the command line asks and return the exit code, as `report` has them."""
    _parser().parse_args(arguments)
    from backend.studio.invitation import invite

    return report(lambda: f"{invite(Settings.from_environment(environ))}\n", output)


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="orfeas studio",
        description="Print an address that opens the studio in a browser of this machine. It is good once, within ten "
        "minutes, and takes the place of the one printed before.",
        epilog=EPILOG,
    )
