#!/usr/bin/env bash
# Starts the server. The first use makes the environment and draws sample studies.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
studies=
host=127.0.0.1
port=8000
options=()

usage() {
  cat <<TEXT
usage: scripts/serve.sh [--studies DIR_OR_URL] [--port N] [--host ADDRESS] [--conf KEY VALUE]...

  --studies DIR_OR_URL   a folder of studies or a DICOMweb server; default: samples/studies, drawn at first use
  --port N               default: $port
  --host ADDRESS         default: $host, this machine only. Before opening it: docs/how-to/many-users.md
  --conf KEY VALUE       an option of the app, any number of times:

TEXT
  for python in "${PROXYPROMPT_VENV:-$root/.venv}/bin/python" python3.11 python3; do
    if command -v "$python" >/dev/null; then
      (cd "$root/apps/proxyprompt" && "$python" -m proxyprompt.settings 2>/dev/null) && return
    fi
  done
  echo "  (see apps/proxyprompt/lib/proxyprompt/settings.py)"
}

fail() { echo "serve: $*; see scripts/serve.sh --help" >&2; exit 2; }

while [ $# -gt 0 ]; do
  case $1 in
  -h | --help) usage; exit 0 ;;
  --studies | --port | --host) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
  --studies) studies=$2; shift 2 ;;
  --port) port=$2; shift 2 ;;
  --host) host=$2; shift 2 ;;
  --conf) [ $# -ge 3 ] || fail "--conf needs a key and a value"; options+=(--conf "$2" "$3"); shift 3 ;;
  *) fail "unknown option '$1'" ;;
  esac
done
[[ $port =~ ^[0-9]+$ ]] && [ "$port" -ge 1 ] && [ "$port" -le 65535 ] || fail "'$port' is not a port: 1 to 65535"
for word in "$studies" ${options[@]+"${options[@]}"}; do
  case $word in
  *[[:space:]\*\?]*) fail "'$word': MONAI Label's launcher takes no spaces, * or ? in paths and values; rename or link it" ;;
  esac
done

source "$root/scripts/setup.sh"
if [ -z "$studies" ]; then
  studies=$root/samples/studies
  [ -e "$studies/datastore_v2.json" ] || python "$root/scripts/make_samples.py" --out "$studies"
fi
case $studies in http://* | https://*) ;; *) studies=$(realpath -m "$studies") ;; esac

echo "serve: http://$host:$port/ (work list; /docs describes the interface), studies: $studies" >&2
# Idle threads of PyTorch sleep instead of spinning: beside other work on the same cores, spinning costs many times more.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
cd "$root"
exec monailabel start_server --app apps/proxyprompt --studies "$studies" --host "$host" --port "$port" \
  ${options[@]+"${options[@]}"}
