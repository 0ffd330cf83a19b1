#!/bin/sh
# Starts the server in the container; arguments are further options, such as: --conf foundation atto
# --health asks a running one whether it is ready.
set -eu

if [ "${1:-}" = --health ]; then
  exec curl -fsS --max-time 9 "http://127.0.0.1:$PORT/health/ready"
fi
exec monailabel start_server --app /app/apps/proxyprompt --studies "$STUDIES" --host 0.0.0.0 --port "$PORT" "$@"
