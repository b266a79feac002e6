"""`orfeas studio`: an address that opens the studio in a browser of this machine, without typing a key.

This module does not know what the address is made of.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from backend.config import Settings
from backend.errors import ServiceError

CANNOT_INVITE = 1


def run(arguments: Sequence[str], environ: Mapping[str, str], output: TextIO) -> int:
    """Do what the command line asks and return the exit code: 0, or 1 with a sentence on standard error."""
    _parser().parse_args(arguments)
    from backend.studio.invitation import invite

    try:
        address = invite(Settings.from_environment(environ))
    except ServiceError as error:
        sys.stderr.write(f"{error.message}\n")
        return CANNOT_INVITE
    output.write(f"{address}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="orfeas studio",
        description="Print an address that opens the studio in a browser of this machine. It is good once, within ten "
        "minutes, and takes the place of the one printed before.",
        epilog="Exit codes: 0 done; 1 it cannot be done, for the reason that is said.",
    )
