#!/usr/bin/env bash
# Installs the servers that the tests start for themselves, where they are missing (Debian packages).
# Ends with 3, and a sentence, where it may not.
set -euo pipefail

missing() {
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || echo postgresql
    command -v redis-server >/dev/null || echo redis-server
    command -v prometheus >/dev/null || echo prometheus
}

# shellcheck disable=SC2046
exec "$(dirname "$0")/install-packages.sh" $(missing)
