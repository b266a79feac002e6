#!/bin/sh
# make-role.sh: run once by PostgreSQL's image, on an empty volume. Makes the role that web processes and workers have: it
# owns its database and nothing else, and can make no other. The password is read by psql, where no list of processes
# shows it.
set -eu

psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\set password `cat "${SECRETS:-/run/secrets}/postgres_password"`
CREATE ROLE orfeas LOGIN PASSWORD :'password';
CREATE DATABASE orfeas OWNER orfeas;
REVOKE ALL ON DATABASE orfeas FROM PUBLIC;
SQL
