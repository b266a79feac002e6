#!/usr/bin/env bash
# Installs what looks at the files of deploy/, where it is missing (Debian packages).
# Ends with 3, and a sentence, where it may not.
set -euo pipefail

missing() {
    command -v systemd-analyze >/dev/null || echo systemd
    command -v shellcheck >/dev/null || echo shellcheck
}

# shellcheck disable=SC2046
exec "$(dirname "$0")/../../benchmarks/support/install-packages.sh" $(missing)
