#!/usr/bin/env bash
# Installs the servers that the tests start for themselves, where they are missing (Debian packages).
set -euo pipefail

installed() { ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; }

if installed; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "The tests need PostgreSQL's server programs: install the package 'postgresql' as root." >&2
    exit 1
fi
# Test processes that run side by side ask at the same time; the first one installs.
exec 9>/var/lock/orfeas-test-services
flock 9
if installed; then
    exit 0
fi
# The package would start a server of its own; only its programs are wanted.
mkdir -p /etc/postgresql-common
printf 'create_main_cluster = false\n' >/etc/postgresql-common/createcluster.conf
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends postgresql >/dev/null
