"""An archive that goes, answers slowly, and comes back: real Orthanc behind a wire that can be cut."""

import socket
import threading
import time
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import numpy as np
import orthanc
import pytest
from dicom_files import save_series
from monailabel.interfaces.exception import MONAILabelException
from pydicom.uid import generate_uid

from proxyprompt.datastores import dicomweb
from proxyprompt.datastores.dicomweb import open_archive
from proxyprompt.io.study import read_study
from proxyprompt.server.answers import status_of

pytestmark = [pytest.mark.faults, pytest.mark.slow]


class Wire:
    """Hands bytes on between clients and a server; ``how`` is "whole", "cut" or "slow"."""

    def __init__(self, port: int):
        self.how, self._port = "whole", port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self.how == "cut":
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._port))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._hand_on, args=(source, target), daemon=True).start()

    def _hand_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while piece := source.recv(65_536):
                while self.how == "slow":
                    time.sleep(0.05)
                if self.how == "cut":
                    break
                target.sendall(piece)
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # closing alone tells nobody while another thread listens
            end.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    if orthanc.missing():
        pytest.skip(orthanc.missing())
    with orthanc.running(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@contextmanager
def wired(archive):
    address = urlsplit(archive.dicomweb)
    wire = Wire(address.port)
    try:
        yield wire, f"http://127.0.0.1:{wire.port}{address.path}"
    finally:
        wire.how = "cut"
        wire.close()


def test_gone_slow_and_back(archive, tmp_path, monkeypatch):
    uid = generate_uid()
    volume = np.arange(4 * 8 * 9, dtype=np.uint16).reshape(4, 8, 9)
    archive.push(save_series(tmp_path / "series", volume, series=uid))
    monkeypatch.setattr(dicomweb, "TIMEOUT", (3, 3))
    monkeypatch.setattr(dicomweb.settings, "MONAI_LABEL_DICOMWEB_CACHE_PATH", str(tmp_path / "cache"))
    monkeypatch.setattr(dicomweb.settings, "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY", 0)
    monkeypatch.setattr(dicomweb.settings, "MONAI_LABEL_DICOMWEB_SEARCH_FILTER", {})
    with wired(archive) as (wire, address):
        store = open_archive(address)
        assert store.list_images() == [uid]
        folder = store.get_image_uri(uid)
        read_study(folder).write_label(np.ones((4, 8, 9), np.uint8), tmp_path / "label.nii.gz")
        named = {"label_info": [{"name": "all", "idx": 1}]}
        for how in ("cut", "slow"):
            wire.how = how
            started = time.monotonic()
            for ask in (
                store.list_images,
                lambda: store.save_label(uid, str(tmp_path / "label.nii.gz"), "final", named),
            ):
                with pytest.raises(MONAILabelException) as caught:
                    ask()
                assert status_of(caught.value) == 503 and "\n" not in caught.value.msg
            assert time.monotonic() - started < 300  # not for ever
            wire.how = "whole"
            assert store.list_images() == [uid] and not store.get_labeled_images()  # back, and nothing half stored
        store.save_label(uid, str(tmp_path / "label.nii.gz"), "final", named)
        assert store.get_labeled_images() == [uid]
        assert read_study(folder).read_label(store.get_label_uri(uid, "final")).all()
