"""An archive with studies of all kinds, and the server on it, for all tests of this folder that ask for them."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import orthanc
from archive_studies import ArchiveStudy, files_of, make_archive_studies
from test_server import Server

from lib.benchmark.server import running_server


@dataclass(frozen=True)
class Archived:
    """A running server on a running archive. Tests that store labels do so on studies of their own."""

    server: Server
    archive: orthanc.Orthanc
    studies: dict[str, ArchiveStudy]

    def series(self, name: str) -> str:
        return self.studies[name].series

    def supports(self) -> list[str]:
        return self.server.info()["models"]["proxyprompt"]["config"]["support"][1:]


@pytest.fixture(scope="session")
def archived(tmp_path_factory):
    if orthanc.missing():
        pytest.skip(orthanc.missing())
    folder = tmp_path_factory.mktemp("archive")
    studies = make_archive_studies(folder / "dicom")
    cache = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache")}
    with orthanc.running(folder / "orthanc") as archive:
        archive.push(*files_of(studies, folder / "dicom"))
        with running_server(archive.dicomweb, log=folder / "server.log", environment=cache) as running:
            yield Archived(Server(running.url, folder, running.process), archive, studies)
