#!/usr/bin/env bash
# Installs the proxies that the tests put in front of the service, where they are missing (Debian packages).
# Ends with 3, and a sentence, where it may not.
set -euo pipefail

missing() {
    command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || echo nginx-light
    command -v caddy >/dev/null || echo caddy
    command -v curl >/dev/null || echo curl
}

# shellcheck disable=SC2046
exec "$(dirname "$0")/../../benchmarks/support/install-packages.sh" $(missing)
