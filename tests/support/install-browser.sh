#!/usr/bin/env bash
# Installs what the studio is tested with: Chromium (a Debian package) and, under build/browser, axe-core (npm).
# Ends with 3, and a sentence, where it may not.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=$(cd "$here/../.." && pwd)/build/browser

missing() {
    command -v chromium >/dev/null || echo chromium
    command -v npm >/dev/null || { command -v node >/dev/null || echo nodejs; echo npm; }
}

# shellcheck disable=SC2046
"$here/../../benchmarks/support/install-packages.sh" $(missing)
[ -d "$folder/node_modules/axe-core" ] && exit 0
mkdir -p "$folder"
# Test processes that run side by side ask at the same time; the first one installs.
exec 9>"$folder/.lock"
flock 9
[ -d "$folder/node_modules/axe-core" ] && exit 0
if ! npm install --silent --no-save --no-audit --no-fund --prefix "$folder" axe-core@4.14.1 >&2; then
    echo "Missing on this machine: the npm package axe-core, and no registry to fetch it from." >&2
    exit 3
fi
