"""What this app changes about the server it runs in."""

import logging

import pytest
from app_in_process import build_app
from monailabel.endpoints import activelearning
from squares import write_squares
from tiny_atto import write_tiny_atto

from proxyprompt.server.install import TELLTALES, quieten


@pytest.fixture
def levels():
    """As they were."""
    loggers = [logging.getLogger(name) for name in TELLTALES]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def test_the_log_does_not_tell_what_is_noted_of_a_study(tmp_path, monkeypatch, caplog, levels):
    write_squares(tmp_path / "studies")
    app = build_app(tmp_path / "studies", write_tiny_atto(tmp_path).parent, background_scoring="false")
    for image in app.datastore().list_images():
        app.datastore().update_image_info(image, {"PatientID": "P-77"})
    monkeypatch.setattr(activelearning, "app_instance", lambda: app)
    caplog.set_level(logging.INFO)
    for talks in (True, False):
        caplog.clear()
        assert activelearning.sample("random")["PatientID"] == "P-77"  # the client is told
        assert ("P-77" in caplog.text) is talks
        quieten()
