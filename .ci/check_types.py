"""The types of the library, by mypy: strict everywhere, with an allowance for the rooms that are not clean yet.

    python .ci/check_types.py             fails when a room has more errors than `.ci/type_errors.json` allows
    python .ci/check_types.py --update    writes today's numbers there; it only ever lowers them

A room that the file does not name has none. mypy itself is configured in pyproject.toml; `mypy` alone lists all errors.
"""

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = ROOT / ".ci" / "type_errors.json"
_ERROR = re.compile(r"^apps/proxyprompt/lib/proxyprompt/(?P<room>\w+)(\.py|/).*?: error: ")


def main() -> int:
    """Run mypy, compare with the allowance, say what is new. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="lower the numbers to today's")
    update = parser.parse_args().update
    ran = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in ran.stdout.splitlines() if ": error: " in line]
    rooms = {line: match["room"] for line in lines if (match := _ERROR.match(line))}
    if ran.returncode not in (0, 1) or len(rooms) < len(lines):
        sys.exit(f"mypy did not do its work:\n{ran.stdout[-4000:]}{ran.stderr}")
    found, allowed = Counter(rooms.values()), json.loads(ALLOWED.read_text())
    more = [room for room, count in found.items() if count > allowed.get(room, 0)]
    for room in more:
        print("\n".join(line for line in lines if rooms[line] == room))
        print(f"types: {room} has {found[room]} errors, {allowed.get(room, 0)} are allowed")
    fewer = [room for room, count in allowed.items() if found[room] < count]
    if fewer and update:
        left = {room: min(count, found[room]) for room, count in sorted(allowed.items()) if found[room]}
        ALLOWED.write_text(json.dumps(left, indent=2) + "\n")
    elif fewer:
        print(f"types: {', '.join(fewer)} got better: lower the allowance with `python .ci/check_types.py --update`")
    if not more:
        print(f"types: {sum(found.values())} errors left, none new")
    return 1 if more else 0


if __name__ == "__main__":
    sys.exit(main())
