#!/usr/bin/env bash
# Installs what docs/recipes run on, where it is missing (Debian packages). Ends with 3, and a sentence, where it may not.
set -euo pipefail

missing() {
    command -v curl >/dev/null || echo curl
    command -v openssl >/dev/null || echo openssl
    command -v node >/dev/null || echo nodejs
}

# shellcheck disable=SC2046
exec "$(dirname "$0")/../../benchmarks/support/install-packages.sh" $(missing)
