#!/usr/bin/env bash
# Installs the servers that the tests start for themselves, where they are missing (Debian packages).
set -euo pipefail

missing() {
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || echo postgresql
    command -v redis-server >/dev/null || echo redis-server
}

if [ -z "$(missing)" ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "The tests need server programs: install as root the packages" $(missing) >&2
    exit 1
fi
# Test processes that run side by side ask at the same time; the first one installs.
exec 9>/var/lock/orfeas-test-services
flock 9
if [ -z "$(missing)" ]; then
    exit 0
fi
# The packages would start servers of their own; only their programs are wanted.
mkdir -p /etc/postgresql-common
printf 'create_main_cluster = false\n' >/etc/postgresql-common/createcluster.conf
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2046
apt-get install -y -qq --no-install-recommends $(missing) >/dev/null
