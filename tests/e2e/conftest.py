"""An archive with studies of all kinds, and the server on it, for all tests of this folder that ask for them."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import orthanc
from archive_studies import ArchiveStudy, files_of, make_archive_studies
from test_server import Server, start_server


@dataclass(frozen=True)
class Archived:
    """A running server on a running archive."""

    server: Server
    archive: orthanc.Orthanc
    studies: dict[str, ArchiveStudy]

    def supports(self) -> list[str]:
        return self.server.info()["models"]["proxyprompt"]["config"]["support"][1:]

    def put_label(self, name: str, file: Path, **label: object) -> None:
        """As a client does that saves a label: ``label`` are the further parameters."""
        self.server.put_label(self.studies[name].series, file, **label)


@pytest.fixture(scope="session")
def archived(tmp_path_factory):
    if orthanc.missing():
        pytest.skip(orthanc.missing())
    folder = tmp_path_factory.mktemp("archive")
    studies = make_archive_studies(folder / "dicom")
    with orthanc.running(folder / "orthanc") as archive:
        archive.push(*files_of(studies, folder / "dicom"))
        with start_server(archive.dicomweb, folder, MONAI_LABEL_DICOMWEB_CACHE_PATH=str(folder / "cache")) as server:
            yield Archived(server, archive, studies)
