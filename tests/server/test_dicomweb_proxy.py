"""The DICOMweb proxy against the answers of the server behind it, a real Orthanc."""

import io
import json
import socket
import threading
import time

import numpy as np
import orthanc
import pydicom
import pytest
import requests
from dicom_files import US, dicom, save_series
from fastapi import FastAPI, Request, Response
from loopback import serving
from pydicom.uid import generate_uid
from requests_toolbelt import MultipartEncoder
from torch.distributed.elastic.utils.distributed import get_free_port

from proxyprompt.server.dicomweb_proxy import proxy_router, readdressed, target_of

RNG = np.random.default_rng(5)
JSON = {"Accept": "application/dicom+json"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    if orthanc.missing():
        pytest.skip(orthanc.missing())
    folder = tmp_path_factory.mktemp("proxy")
    with orthanc.running(folder / "orthanc") as server:
        for number in range(5):
            save(folder / f"ct{number}", f"Person^{number}", slices=2 + number, study=generate_uid())
            server.push(folder / f"ct{number}")
        yield server


def save(folder, patient, *, slices, study):
    save_series(folder, RNG.integers(0, 3000, (slices, 40, 50)).astype(np.uint16), series=generate_uid())
    for file in folder.iterdir():
        ds = pydicom.dcmread(file)
        ds.StudyInstanceUID, ds.PatientName, ds.PatientID = study, patient, patient[-1]
        ds.StudyDescription, ds.InstitutionName = f"Study of {patient}", "Hospital"
        ds.save_as(file)
    return folder


@pytest.fixture(scope="module")
def stored():
    return []


@pytest.fixture(scope="module")
def url(archive, stored):
    with proxying(archive.dicomweb, stored) as address:
        yield address


def proxying(address, stored=()):
    server = FastAPI()
    server.include_router(proxy_router(address, requests.Session(), lambda: stored.append(True)))
    return serving(server)


def both(archive, url, path, headers=None, root="qido"):
    """The same question to the proxy and to the archive itself."""
    mine = requests.get(f"{url}/proxy/dicom/{root}/{path}", headers=headers, timeout=60)
    return mine, requests.get(f"{archive.dicomweb}/{path}", headers=headers, timeout=60)


def studies(archive):
    found = requests.get(f"{archive.dicomweb}/studies", headers=JSON, timeout=60).json()
    return sorted(entry["0020000D"]["Value"][0] for entry in found)


@pytest.mark.parametrize(
    "path",
    [
        "studies",
        "studies?limit=2",
        "studies?limit=2&offset=3",
        "studies?PatientID=3",
        "studies?PatientName=Pers*&fuzzymatching=true",
        "studies?PatientName=person%5E2",
        "studies?includefield=00081030&includefield=00080050&limit=1",
        "series?Modality=CT&limit=3",
        "series?Modality=MR",
        "instances?limit=4&offset=1",
    ],
)
def test_what_is_asked_for_is_what_comes(archive, url, path):
    mine, theirs = both(archive, url, path, JSON)
    assert mine.status_code == theirs.status_code and mine.headers["Content-Type"] == theirs.headers["Content-Type"]
    if theirs.content:
        here = f"{url}/proxy/dicom/wado"
        assert mine.json() == json.loads(theirs.text.replace(archive.dicomweb, here))


def test_filters_reach_the_archive_at_all(archive, url):
    """The sentence above would hold for two lists that are whole."""
    mine, _ = both(archive, url, "studies?PatientID=3", JSON)
    assert [entry["00100020"]["Value"] for entry in mine.json()] == [["3"]]
    assert len(both(archive, url, "studies?limit=2", JSON)[0].json()) == 2


@pytest.mark.parametrize("comma", [",", "%2C", "%2c"])
def test_attributes_asked_for_together_come(archive, url, comma):
    mine, _ = both(archive, url, f"studies?limit=1&includefield=00081030{comma}00080080", JSON)
    assert {"00081030", "00080080"} <= mine.json()[0].keys()


def test_the_series_of_a_study_are_that_study_s_only(archive, url):
    for study in studies(archive):
        for path in (f"studies/{study}/series", f"series?StudyInstanceUID={study}"):
            mine, _ = both(archive, url, path, JSON)
            assert {entry["0020000D"]["Value"][0] for entry in mine.json()} == {study}


def addresses(archive):
    """study, series and instance of something with pixels."""
    found = requests.get(f"{archive.dicomweb}/instances?limit=1", headers=JSON, timeout=60).json()[0]
    return (found[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))


@pytest.mark.parametrize("kind", ["*/*", 'multipart/related; type="application/octet-stream"', "image/png"])
def test_pixels_come_as_the_viewer_wants_them(archive, url, kind):
    study, series, instance = addresses(archive)
    where = f"studies/{study}/series/{series}/instances/{instance}"
    what = f"{where}/rendered" if kind == "image/png" else f"{where}/frames/1"
    mine, theirs = both(archive, url, what, {"Accept": kind}, "wado")
    assert (mine.status_code, len(mine.content)) == (
        theirs.status_code,
        len(theirs.content),
    ) and mine.status_code == 200
    assert (
        mine.headers["Content-Type"].partition("boundary")[0] == theirs.headers["Content-Type"].partition("boundary")[0]
    )
    assert pixels(mine) == pixels(theirs)


def pixels(answer):
    """Without the boundary, which is another one each time."""
    boundary = answer.headers["Content-Type"].partition("boundary=")[2]
    mark = boundary.strip('"').encode()
    return answer.content.replace(mark, b"") if mark else answer.content


def test_a_whole_series_and_its_metadata(archive, url):
    study, series, _ = addresses(archive)
    where = f"studies/{study}/series/{series}"
    mine, theirs = both(archive, url, where, {"Accept": 'multipart/related; type="application/dicom"'}, "wado")
    assert pixels(mine) == pixels(theirs) and len(mine.content) > 4000
    for root in ("wado", "qido"):
        mine, theirs = both(archive, url, f"{where}/metadata", JSON, root)
        assert mine.json() == json.loads(theirs.text.replace(archive.dicomweb, f"{url}/proxy/dicom/wado"))


def test_bulk_data_is_found_where_the_metadata_say(archive, url):
    study, series, _ = addresses(archive)
    mine, _ = both(archive, url, f"studies/{study}/series/{series}/metadata", JSON, "wado")
    (address,) = {entry["7FE00010"]["BulkDataURI"] for entry in mine.json()[:1]}
    assert address.startswith(f"{url}/proxy/dicom/wado/studies/{study}")
    got = requests.get(address, timeout=60)
    theirs = requests.get(address.replace(f"{url}/proxy/dicom/wado", archive.dicomweb), timeout=60)
    assert got.status_code == 200 and pixels(got) == pixels(theirs) and len(got.content) >= 2 * 40 * 50


def test_ranges_and_head(archive, url):
    study, series, instance = addresses(archive)
    path = f"studies/{study}/series/{series}/instances/{instance}"
    for headers in ({"Range": "bytes=0-99"}, {"Range": "bytes=10-"}):
        mine, theirs = both(archive, url, f"{path}/bulk/7fe00010", headers, "wado")
        assert (mine.status_code, pixels(mine)) == (theirs.status_code, pixels(theirs))
        assert mine.headers.get("Content-Range") == theirs.headers.get("Content-Range")
    mine = requests.head(f"{url}/proxy/dicom/wado/{path}/rendered", timeout=60)
    assert mine.status_code == requests.head(f"{archive.dicomweb}/{path}/rendered", timeout=60).status_code


def test_a_range_that_a_server_gives_is_passed_on():
    """Orthanc knows no ranges; others do."""
    other = FastAPI()

    @other.get("/dicom-web/bulk")
    def bulk(request: Request):
        headers = {"Content-Range": "bytes 2-4/9", "ETag": '"x"'}
        return Response(request.headers["range"].encode()[:3], status_code=206, headers=headers)

    with serving(other) as behind, proxying(f"{behind}/dicom-web") as url:
        got = requests.get(f"{url}/proxy/dicom/wado/bulk", headers={"Range": "bytes=2-4"}, timeout=60)
        assert (got.status_code, got.content, got.headers["Content-Range"]) == (206, b"byt", "bytes 2-4/9")
        assert got.headers["ETag"] == '"x"'


@pytest.mark.parametrize("path", ["studies/1.2.3/metadata", "studies?limit=many", "nothing/there", "studies/1.2.3"])
def test_errors_are_passed_on(archive, url, path):
    mine, theirs = both(archive, url, path, JSON, "wado")
    assert theirs.status_code >= 400 or not theirs.json()
    assert (mine.status_code, mine.content) == (theirs.status_code, theirs.content)


def test_a_store_is_passed_on_and_told(archive, url, stored):
    image = dicom(RNG.integers(0, 9, (20, 24)).astype(np.uint16), sop=US, modality="US")
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    file = io.BytesIO()
    image.save_as(file, write_like_original=False)
    body = MultipartEncoder({"image": ("image.dcm", file.getvalue(), "application/dicom")})
    kind = f'multipart/related; type="application/dicom"; boundary={body.content_type.split("boundary=")[1]}'
    headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
    answer = requests.post(f"{url}/proxy/dicom/stow/studies", data=body.to_string(), headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["00081199"]["Value"][0]["00081155"]["Value"] == [image.SOPInstanceUID]
    assert stored == [True]
    assert image.StudyInstanceUID in studies(archive)
    headers["Content-Type"] = "text/plain"
    answer = requests.post(f"{url}/proxy/dicom/stow/studies", data=b"nonsense", headers=headers, timeout=60)
    theirs = requests.post(f"{archive.dicomweb}/studies", data=b"nonsense", headers=headers, timeout=60)
    assert answer.status_code == theirs.status_code >= 400 and stored == [True]


def test_who_somebody_is_here_is_not_told_there():
    seen = {}
    other = FastAPI()

    @other.get("/dicom-web/studies")
    def look(request: Request):
        seen.update(request.headers)
        return []

    with serving(other) as behind, proxying(f"{behind}/dicom-web") as url:
        headers = {"Authorization": "Bearer mine", "Cookie": "a=b", "Accept": "application/json", "X-Other": "kept"}
        requests.get(f"{url}/proxy/dicom/qido/studies", headers=headers, timeout=60)
    assert "authorization" not in seen and "cookie" not in seen
    assert seen["x-other"] == "kept" and seen["accept"] == "application/json"


def test_an_archive_that_is_not_running_is_said_at_once():
    with proxying(f"http://127.0.0.1:{get_free_port()}/dicom-web") as url:
        begun = time.monotonic()
        answer = requests.get(f"{url}/proxy/dicom/qido/studies", timeout=60)
        assert time.monotonic() - begun < 2
    detail = answer.json()["detail"]
    assert answer.status_code == 502 and "is not running" in detail
    assert "Error" not in detail and "Pool" not in detail


def test_what_is_long_is_passed_on_as_it_comes():
    """The first bytes are here before the last ones are sent."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held = threading.Event()

        def behind():
            connection, _ = listening.accept()
            connection.recv(65536)
            start = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 600000\r\n\r\n"
            connection.sendall(start + b"a" * 300000)
            held.wait(30)
            connection.sendall(b"b" * 300000)
            connection.close()

        threading.Thread(target=behind, daemon=True).start()
        with proxying(f"http://127.0.0.1:{listening.getsockname()[1]}/dicom-web") as url:
            answer = requests.get(f"{url}/proxy/dicom/wado/long", stream=True, timeout=20)
            assert answer.raw.read(1000) == b"a" * 1000
            held.set()
            assert len(answer.raw.read()) == 599000


def test_addresses(monkeypatch):
    monkeypatch.setattr("monailabel.config.settings.MONAI_LABEL_WADO_PREFIX", "w")
    archive = "http://archive/dw"
    assert target_of(archive, b"/proxy/dicom/wado/studies/1%2F2", b"a=%5E") == (
        f"{archive}/w/studies/1%2F2?a=%5E",
        "wado",
    )
    assert target_of(archive, b"/x/proxy/dicom/qido/studies/1/metadata", b"")[0] == f"{archive}/w/studies/1/metadata"
    assert target_of(archive, b"/proxy/dicom/studies", b"")[0] == f"{archive}/studies"
    given = rb'[{"BulkDataURI":"https://a:1/x/studies/1.2/bulk/7"},{"u":"http:\/\/a\/studies\/1.2"},'
    given += rb'{"c":"see studies/1.2"}]'
    assert json.loads(readdressed(given, "http://me/w")) == [
        {"BulkDataURI": "http://me/w/studies/1.2/bulk/7"},
        {"u": "http://me/w/studies/1.2"},
        {"c": "see studies/1.2"},
    ]
