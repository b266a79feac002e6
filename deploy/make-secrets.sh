#!/bin/sh
# make-secrets.sh [FOLDER]: makes the secrets that compose.yaml's cluster reads, each in a file of its own, where missing.
#
# The folder is its owner's alone. The files in it can be read by all, because the users inside the containers are
# others than the one who makes them: nobody else on this machine gets through the folder.
set -eu
umask 077

folder=${1:-secrets}
mkdir -p "$folder"
chmod 0700 "$folder"

put() {
    [ -e "$folder/$1" ] && return
    printf %s "$2" >"$folder/.$1.new"
    chmod 0444 "$folder/.$1.new"
    mv "$folder/.$1.new" "$folder/$1"
    echo "$folder/$1 is made."
}

put postgres_admin_password "$(openssl rand -hex 24)"
put postgres_password "$(openssl rand -hex 24)"
put database_url "postgresql://orfeas:$(cat "$folder/postgres_password")@postgres:5432/orfeas"
put redis_password "$(openssl rand -hex 24)"
put redis_url "redis://:$(cat "$folder/redis_password")@redis:6379/0"
put broker_url "redis://:$(cat "$folder/redis_password")@redis:6379/1"
put metrics_token "$(openssl rand -hex 24)"
put grafana_password "$(openssl rand -hex 24)"
