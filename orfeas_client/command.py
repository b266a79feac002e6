"""The command `orfeas-client`, which says what to install where rich, with which it draws, is missing.

This module does not know the commands' options.
"""

from __future__ import annotations

import importlib.util
import os
import sys


def main() -> int:
    """Run the command line on this process's arguments and environment; return its exit code, 2 without rich."""
    if importlib.util.find_spec("rich") is None:
        sys.stderr.write("The command line draws with rich: pip install 'orfeas-client[cli]'\n")
        return 2
    from orfeas_client.cli import run

    return run(sys.argv[1:], os.environ)
