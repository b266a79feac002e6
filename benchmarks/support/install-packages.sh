#!/usr/bin/env bash
# install-packages.sh PACKAGE...: installs Debian packages, as root; ends with 3, and a sentence, where it may not.
set -euo pipefail

[ $# -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Missing on this machine: $*. As root: apt-get install --no-install-recommends $*" >&2
    exit 3
fi
# Test processes that run side by side ask at the same time; the first one installs.
exec 9>/var/lock/orfeas-test-services
flock 9
packages=()
for package in "$@"; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || packages+=("$package")
done
[ ${#packages[@]} -gt 0 ] || exit 0
echo "Installing for the tests: ${packages[*]}" >&2
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
apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
