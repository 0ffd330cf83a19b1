"""Fetches published weights, checks them, and puts them where the app looks. The only thing here that downloads.

    python scripts/fetch_weights.py --list                    what there is: size, licence, whether it is present
    python scripts/fetch_weights.py sam_vit_b                 from where its authors publish it
    python scripts/fetch_weights.py sam_vit_b --url URL       from a mirror; the file must be the same
    python scripts/fetch_weights.py sam_vit_b --from FILE     a file carried over by hand, checked all the same

A broken download leaves NAME.part; the same command goes on from there. Exit status: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

import requests
from tqdm import tqdm

from proxyprompt.foundation.checkpoints import (
    CHECKPOINTS,
    Checkpoint,
    CheckpointError,
    check_content,
    remember_digest,
    verify_checkpoint,
)

MODEL_DIR = Path(__file__).resolve().parents[1] / "apps" / "proxyprompt" / "model"
CHUNK = 1 << 18
TIMEOUT_S = (15, 60)  # to connect, between two pieces


class FetchError(RuntimeError):
    """The file could not be fetched; the message says why and what to do."""


def part_of(path: Path) -> Path:
    """Where an unfinished download of ``path`` lies."""
    return path.with_name(path.name + ".part")


def fetch(entry: Checkpoint, folder: Path, *, url: str | None = None) -> Path:
    """Download ``entry`` into ``folder``, going on from an unfinished one; the path of the checked file."""
    if entry.bytes is None:
        raise FetchError(
            f"the length of {entry.file} is not known here, so that a download could not be told from half of one. "
            f"Download it by hand from {entry.url}, then: fetch_weights.py {entry.name} --from FILE"
        )
    part = part_of(folder / entry.file)
    have = part.stat().st_size if part.exists() else 0
    if have > entry.bytes:
        part.unlink()
        have = 0
    if have < entry.bytes:
        _need_space(folder, entry.bytes - have)
        _download(entry, part, url or entry.url, have)
    return _accept(entry, part, origin=url or entry.url)


def take(entry: Checkpoint, folder: Path, source: Path) -> Path:
    """Copy ``source``, carried over by hand, into ``folder``; the path of the checked copy. The source stays."""
    if not source.is_file():
        raise FetchError(f"--from {source}: there is no such file")
    if entry.bytes is not None and source.stat().st_size != entry.bytes:
        raise FetchError(
            f"{source} has {source.stat().st_size} bytes, {entry.name} has {entry.bytes}: cut off, or another "
            f"file. Nothing was changed"
        )
    part = part_of(folder / entry.file)
    _need_space(folder, source.stat().st_size)
    shutil.copyfile(source, part)
    return _accept(entry, part, origin=str(source))


def _need_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise FetchError(
            f"{folder} has {free / 1e6:.0f} MB free, {size / 1e6:.0f} MB are needed; make room or use --dir"
        )


def _download(entry: Checkpoint, part: Path, url: str, have: int) -> None:
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            have = _start(entry, response, have)
            _receive(entry, response, part, have)
    except requests.RequestException as error:
        kept = part.stat().st_size if part.exists() else 0
        again = f"What has come is kept in {part.name}: run the same command again to go on" if kept else "Try again"
        raise FetchError(
            f"the connection to {url} failed at {kept} of {entry.bytes} bytes ({error}). {again}, or use --url for a "
            f"mirror, --from for a file"
        ) from error
    size = part.stat().st_size
    if size < entry.bytes:
        raise FetchError(
            f"{url} ended at {size} of {entry.bytes} bytes. What has come is kept in {part.name}: run the same command "
            f"again to go on"
        )


def _start(entry: Checkpoint, response: requests.Response, have: int) -> int:
    """From which byte on this answer is; FetchError for one that is not, or not all of, the file."""
    status = response.status_code
    if status == 404:
        raise FetchError(
            f"{response.url} does not exist (404). It may have moved: see where the authors of {entry.name} publish "
            f"{entry.file}, then use --url, or --from with a file that you have"
        )
    if status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have or match[2] not in ("*", str(entry.bytes)):
            said = response.headers.get("Content-Range")
            raise FetchError(
                f"{response.url} answers bytes {said!r}, asked for were those from {have} on of {entry.bytes}: it is "
                f"another file. Delete {entry.file}.part to start anew, or use --url for a mirror"
            )
        return have
    if status != 200:
        raise FetchError(f"{response.url} answers {status} {response.reason}; try later, or use --url for a mirror")
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != entry.bytes:
        raise FetchError(
            f"{response.url} offers {length} bytes, {entry.name} has {entry.bytes}: it is another file, or a page that "
            f"asks something. Nothing was downloaded"
        )
    return 0  # also when asked for the rest: a server that knows no ranges sends all of it again


def _receive(entry: Checkpoint, response: requests.Response, part: Path, have: int) -> None:
    with (
        part.open("ab" if have else "wb") as file,
        tqdm(total=entry.bytes, initial=have, unit="B", unit_scale=True, desc=entry.name, disable=None) as bar,
    ):
        for piece in response.iter_content(CHUNK):
            file.write(piece)
            bar.update(len(piece))
            if file.tell() > entry.bytes:
                break  # whatever this is, the check will not take it; do not fill the disk with it


def _accept(entry: Checkpoint, part: Path, *, origin: str) -> Path:
    """Check the complete ``part`` and give it its name; a wrong one is deleted."""
    try:
        sha256 = check_content(entry, part)
    except CheckpointError as error:
        part.unlink()
        raise FetchError(f"{error}. It came from {origin} and was deleted; nothing was installed") from None
    path = part.with_name(entry.file)
    part.replace(path)
    remember_digest(path, sha256, first_use=sha256 if entry.sha256 is None else None)
    return path


def present(entry: Checkpoint, folder: Path) -> str:
    """One word or two on whether the file is in ``folder``, from its length only."""
    path = folder / entry.file
    if path.exists():
        return "yes" if entry.bytes in (None, path.stat().st_size) else "other size"
    part = part_of(path)
    return f"{100 * part.stat().st_size // entry.bytes} % fetched" if part.exists() else "no"


def listing(folder: Path) -> str:
    """The table that ``--list`` prints."""
    lines = [f"{'name':24} {'size':>9}  {'licence':12} present in {folder}"]
    for entry in CHECKPOINTS.values():
        size = "?" if entry.bytes is None else f"{entry.bytes / 1e6:.0f}"
        lines.append(f"{entry.name:24} {size:>6} MB  {entry.licence:12} {present(entry, folder)}")
    return "\n".join(lines)


def run(entry: Checkpoint, folder: Path, *, url: str | None, source: Path | None) -> str:
    """Get one entry by download or from a file, unless it is there; a sentence on what was done."""
    path = folder / entry.file
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        try:
            verify_checkpoint(entry, path)
        except CheckpointError as error:
            reason = str(error).split(". ", 1)[0]
            raise FetchError(
                f"{reason}. It may be yours, so it is left alone: move it away, then run this again"
            ) from None
        return f"{entry.name} is there already: {path}"
    path = take(entry, folder, source) if source else fetch(entry, folder, url=url)
    checked = "sha256 checked" if entry.sha256 else "the published md5 checked, its sha256 recorded"
    if not (entry.sha256 or entry.md5):
        checked = "no hash of it is known here; its sha256 is recorded"
    return f"{entry.name}: {path} ({path.stat().st_size / 1e6:.0f} MB, {entry.licence}; {checked})"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="which weights; --list names them")
    parser.add_argument("--list", action="store_true", help="list the known weights and leave")
    parser.add_argument("--dir", type=Path, default=MODEL_DIR, help="where to put the file (default: %(default)s)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--from", dest="source", type=Path, metavar="FILE", help="take this file instead of downloading")
    where.add_argument("--url", help="download from here instead of from its authors")
    options = parser.parse_args(arguments)
    if options.list:
        print(listing(options.dir))
        return 0
    if options.name not in CHECKPOINTS:
        given = "no name given" if options.name is None else f"unknown weights {options.name!r}"
        print(f"fetch_weights: {given}; known: {', '.join(CHECKPOINTS)}", file=sys.stderr)
        return 2
    try:
        print(run(CHECKPOINTS[options.name], options.dir, url=options.url, source=options.source))
    except (FetchError, OSError) as error:
        print(f"fetch_weights: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fetch_weights: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
