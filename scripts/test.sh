#!/usr/bin/env bash
# Runs the tests; the first use makes the environment.
#
#   scripts/test.sh              everything but what is marked slow, gpu or browser
#   scripts/test.sh --slow       the slow ones too
#   scripts/test.sh --gpu        only those that need a CUDA device
#   scripts/test.sh --e2e        only those that start a real server
#   scripts/test.sh --faults     only those that kill, fill disks and the like, the long ones too
#   scripts/test.sh --browser    only those that drive OHIF in a real browser
#   scripts/test.sh ARGUMENTS    anything else goes to pytest (after one of the above, or alone)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
marks="not slow and not gpu and not browser"
# One for each core, the longest files first (tests/conftest.py); what starts servers on purpose runs alone.
workers=(-n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder)
case ${1:-} in
-h | --help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
--slow) marks="not gpu and not browser"; shift ;;
--gpu) marks="gpu"; workers=(); shift ;;
--faults) marks="faults"; workers=(); shift ;;
--e2e) marks="e2e"; workers=(); shift ;;
--browser) marks="browser"; workers=(); shift ;;
esac

source "$root/scripts/setup.sh"
cd "$root"
exec python -m pytest -m "$marks" "${workers[@]}" "$@"
