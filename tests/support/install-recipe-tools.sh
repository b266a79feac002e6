#!/usr/bin/env bash
# Installs what docs/recipes run on, where it is missing (Debian packages).
set -euo pipefail

missing() { for tool in curl openssl node; do command -v "$tool" >/dev/null || return 0; done; return 1; }

if ! missing; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "The tests of docs/recipes need curl, openssl and node: install them as root." >&2
    exit 1
fi
# Test processes that run side by side ask at the same time; the first one installs.
exec 9>/var/lock/orfeas-test-services
flock 9
if ! missing; then
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends curl openssl nodejs >/dev/null
