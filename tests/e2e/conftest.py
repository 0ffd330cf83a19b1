"""An archive with studies of all kinds, and the server on it, for all tests of this folder that ask for them."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import orthanc
import pytest
import requests
from archive_studies import ArchiveStudy, files_of, make_archive_studies
from test_server import Server

from proxyprompt.benchmark.server import running_server


@dataclass(frozen=True)
class Archived:
    """A running server on a running archive. Tests that store labels do so on studies of their own."""

    server: Server
    archive: orthanc.Orthanc
    studies: dict[str, ArchiveStudy]

    def series(self, name: str) -> str:
        return self.studies[name].series

    def put(self, name: str, file: Path, **label: object) -> requests.Response:
        """As a client saves a final label; ``label`` is what it says about it."""
        return requests.put(
            f"{self.server.url}/datastore/label",
            params={"image": self.series(name), "tag": "final"},
            files={"label": (file.name, file.read_bytes())},
            data={"params": json.dumps(label)},
            timeout=300,
        )

    def supports(self) -> list[str]:
        return self.server.supports()


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
            made = Archived(Server(running.url, folder, running.process), archive, studies)
            made.server.wait_for_labels()
            yield made


@pytest.fixture(scope="module")
def viewer(archived, tmp_path_factory):
    """OHIF on that server. Screenshots go to the folder that OHIF_SCREENSHOTS names, else to one of their own."""
    import viewer_page

    folder = Path(os.environ.get("OHIF_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    with viewer_page.viewer(archived.server.url, folder) as page:
        yield page
