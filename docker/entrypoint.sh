#!/bin/sh
# The image's commands: serve (the default), worker, agent (add, list, rotate, disable, enable, remove), or any program.
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
worker) exec python -m backend.worker "$@" ;;
agent) exec python -m backend.agent_auth "$@" ;;
*) exec "$command" "$@" ;;
esac
