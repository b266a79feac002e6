#!/bin/sh
# The image's commands: serve (the default), any other of `orfeas`'s (worker, agents, migrate, doctor …), or any program.
# Each becomes this very process, so that SIGTERM reaches it.
set -eu
umask 077

command=${1:-serve}
[ $# -eq 0 ] || shift
case $command in
serve)
    # No agent is made here: its key would stay in the container's log.
    python -m backend.serve --only-check
    exec gunicorn --config python:backend.serve.gunicorn_conf "$@" 'backend.main:create_app()'
    ;;
agent) exec python -m backend.cli.main agents "$@" ;; # as the first release's image called it
worker | agents | keys | webhooks | migrate | backup | restore | doctor | generate | demo) exec python -m backend.cli.main "$command" "$@" ;;
*) exec "$command" "$@" ;;
esac
