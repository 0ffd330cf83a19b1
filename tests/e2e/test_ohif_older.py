"""Where the viewer's package is not here, MONAI Label's older OHIF serves, and the log says so."""

import orthanc
import pytest
import viewer_page
from archive_studies import labelled_and_not
from tiny_atto import write_tiny_atto

from proxyprompt.benchmark.server import running_server

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(viewer_page.missing() is not None, reason=viewer_page.missing() or ""),
]


def test_the_older_viewer_opens_studies_and_asks_nothing_of_other_sites(tmp_path):
    if orthanc.missing():
        pytest.skip(orthanc.missing())
    waiting = labelled_and_not(tmp_path / "dicom", ("mr",))["mr"]
    environment = {
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path / "cache"),
        "PROXYPROMPT_OHIF": str(tmp_path / "not here"),
    }
    conf = {"weights_dir": write_tiny_atto(tmp_path).parent, "background_scoring": "false"}
    log = tmp_path / "server.log"
    with orthanc.running(tmp_path / "orthanc") as archive:
        archive.push(tmp_path / "dicom")
        with (
            running_server(archive.dicomweb, log=log, conf=conf, environment=environment) as server,
            viewer_page.viewer(server.url, tmp_path / "screenshots") as viewer,
        ):
            viewer.page.goto(f"{server.url}/ohif/", wait_until="domcontentloaded")
            viewer.page.get_by_text(waiting.name).first.wait_for()
            viewer.page.goto(
                f"{server.url}/ohif/monai-label?StudyInstanceUIDs={waiting.study}", wait_until="domcontentloaded"
            )
            viewer.page.get_by_text("MONAI Label").first.wait_for()
            viewer.page.wait_for_selector(".cornerstone-canvas")
            viewer.shot("older_viewer")
            assert [a for a in viewer.asked if not a.startswith((server.url, "data:", "blob:"))] == []
    assert "python -m proxyprompt.viewer.package" in log.read_text()
