#!/usr/bin/env bash
# Makes the Python environment of this checkout, once: `.venv`, or the folder that PROXYPROMPT_VENV names.
#
#   scripts/setup.sh           make it, or do nothing when it is up to date
#   source scripts/setup.sh    the same, and put it first on PATH
#
# The project itself is installed in editable form: `import proxyprompt` works everywhere in that environment.
# A stamp holds the hash of requirements.txt and pyproject.toml, so that every use but the first is instant.
set -euo pipefail

pp_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
pp_venv=${PROXYPROMPT_VENV:-$pp_root/.venv}

pp_fail() { echo "setup: $*" >&2; exit 1; }

case "$pp_root$pp_venv" in
*[[:space:]]*) pp_fail "'$pp_root' or '$pp_venv' has a space in it; MONAI Label's launcher cannot handle that: move the" \
  "checkout, or set PROXYPROMPT_VENV, to a path without spaces" ;;
esac

pp_is_311() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; }

pp_python() {
  local candidate
  for candidate in ${PROXYPROMPT_PYTHON:-} python3.11 python3 python; do
    if command -v "$candidate" >/dev/null && pp_is_311 "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  pp_fail "Python 3.11 was not found; python3 is $(python3 --version 2>/dev/null || echo 'not there'). Install it" \
    "(Debian 12: apt-get install python3.11 python3.11-venv) or set PROXYPROMPT_PYTHON to one"
}

# uv knows nothing of pip's configuration: hand an index that the machine's owner set for pip on to it.
pp_index() {
  [ -n "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] && return
  local index
  index=${PIP_INDEX_URL:-$("$pp_venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)}
  if [ -n "$index" ]; then export UV_DEFAULT_INDEX=$index; fi
  if [ -n "${PIP_CERT:-}" ] && [ -z "${SSL_CERT_FILE:-}" ]; then export SSL_CERT_FILE=$PIP_CERT; fi
}

# uv is many times faster than pip, but does not unpack MONAI Label's command and viewer: that one goes through pip.
# sam2 is built here from source; it takes the torch that was just installed instead of fetching another for the build.
pp_install() {
  local python=$pp_venv/bin/python rest apart='^(monailabel|sam2)=='
  if "$python" -m pip install --quiet uv; then
    pp_index
    rest=$(mktemp)
    grep -Ev "$apart" "$pp_root/requirements.txt" >"$rest"
    if "$python" -m uv pip install --python "$python" --requirement "$rest" &&
      SAM2_BUILD_CUDA=0 "$python" -m uv pip install --python "$python" --no-deps --no-build-isolation \
        "$(grep '^sam2==' "$pp_root/requirements.txt")" &&
      "$python" -m pip install --quiet --no-deps "$(grep '^monailabel==' "$pp_root/requirements.txt")"; then
      rm -f "$rest"
      return
    fi
    rm -f "$rest"
    echo "setup: uv failed; trying plain pip (about ten minutes)" >&2
  fi
  "$python" -m pip install --requirement "$pp_root/requirements.txt"
}

pp_make() {
  local stamp=$pp_venv/.requirements.sha256 wanted python
  wanted=$(cat "$pp_root/requirements.txt" "$pp_root/pyproject.toml" | sha256sum)
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x "$pp_venv/bin/monailabel" ] && return
  python=$(pp_python) || exit 1
  mkdir -p "$pp_venv"
  # Two terminals that start at once must not install into one folder together (uv locks .lock itself).
  exec 9>"$pp_venv/.setup.lock"
  if command -v flock >/dev/null; then flock 9; fi
  if ! { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; }; then
    echo "setup: making the environment in $pp_venv (once; a few minutes and 8 GB)" >&2
    if ! [ -x "$pp_venv/bin/python" ] || ! "$pp_venv/bin/python" -m pip --version >/dev/null 2>&1; then
      "$python" -m venv "$pp_venv" ||
        pp_fail "'$python -m venv' failed. On Debian: apt-get install python3.11-venv, then again"
    fi
    pp_install >&2 || pp_fail "the packages could not be installed; is a package index reachable from here?"
    "$pp_venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable "$pp_root" >&2 ||
      pp_fail "the project itself could not be installed from $pp_root; the error stands above"
    "$pp_venv/bin/python" -c 'import monailabel, torch, sam2, segment_anything, proxyprompt' ||
      pp_fail "the environment in $pp_venv does not import: delete it and start again"
    "$pp_venv/bin/python" -m proxyprompt.viewer.package >&2 || true # it says what is missing, and what serves meanwhile
    echo "$wanted" >"$stamp.new" && mv "$stamp.new" "$stamp"
  fi
  exec 9>&-
}

pp_make
export PATH=$pp_venv/bin:$PATH
