"""A real Orthanc with DICOMweb, on a free port of this machine, with its own empty database."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from torch.distributed.elastic.utils.distributed import get_free_port

PLUGIN_FOLDERS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins")
START_SECONDS = 120


class Orthanc:
    """url: of its own interface. dicomweb: what `--studies` takes. process: of a running one."""

    def __init__(self, url: str, process: subprocess.Popen | None = None):
        self.url, self.dicomweb, self.process = url, f"{url}/dicom-web", process

    def push(self, *paths: Path) -> None:
        """Stores files, or all files of folders."""
        for path in paths:
            for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
                answer = requests.post(f"{self.url}/instances", data=file.read_bytes(), timeout=60)
                assert answer.status_code == 200, f"{file}: {answer.text}"

    def instances(self, **tags: str) -> list[bytes]:
        """The files of all instances whose series has these tags."""
        query = {"Level": "Instance", "Query": tags}
        found = requests.post(f"{self.url}/tools/find", json=query, timeout=60).json()
        return [requests.get(f"{self.url}/instances/{i}/file", timeout=60).content for i in found]

    def delete_series(self, uid: str) -> None:
        query = {"Level": "Series", "Query": {"SeriesInstanceUID": uid}}
        for series in requests.post(f"{self.url}/tools/find", json=query, timeout=60).json():
            requests.delete(f"{self.url}/series/{series}", timeout=60).raise_for_status()


def missing() -> str | None:
    """What is not installed, and how to get it; None where everything is."""
    if shutil.which("Orthanc") and _plugin():
        return None
    return "Orthanc with DICOMweb is not installed: apt-get install --no-install-recommends orthanc orthanc-dicomweb"


@contextmanager
def running(folder: Path, port: int | None = None) -> Iterator[Orthanc]:
    """port: of one that was stopped, whose database is still in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or get_free_port()
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "Plugins": [str(_plugin())],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    log = folder / "orthanc.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=out, stderr=subprocess.STDOUT)
    try:
        _wait(f"http://127.0.0.1:{port}/dicom-web/series", process, log)
        yield Orthanc(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(60)


def _wait(address: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            if requests.get(address, timeout=10).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    raise RuntimeError(f"Orthanc did not start:\n{log.read_text()[-2000:]}")


def _plugin() -> Path | None:
    found = [p for folder in PLUGIN_FOLDERS for p in sorted(Path(folder).glob("libOrthancDicomWeb.so*"))]
    return found[0] if found else None
