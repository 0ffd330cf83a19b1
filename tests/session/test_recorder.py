"""What the app itself notes while somebody works with it."""

import csv

import numpy as np
import pytest
import session_report
from app_in_process import build_app
from PIL import Image
from squares import write_squares
from tiny_atto import write_tiny_atto

from proxyprompt.session.report import session_rows


@pytest.fixture
def app(tmp_path):
    studies = write_squares(tmp_path / "studies")
    return build_app(studies, write_tiny_atto(tmp_path).parent, labels="head=1")


def submit(app, study, labels, names):
    path = f"{app.studies}/../submitted.png"
    Image.fromarray(labels).save(path)
    info = {"label_info": [{"name": name, "idx": id} for name, id in names.items()]}
    app.on_save_label(study, app.datastore().save_label(study, path, "final", info))


def test_accepted_as_it_was_and_corrected(app, tmp_path):
    for study, pixels in (("s2", 0), ("s3", 5)):
        made = app.infer({"model": "proxyprompt", "image": study})
        labels, names = np.asarray(Image.open(made["file"])).copy(), made["params"]["label_names"]
        rows, columns = np.nonzero(labels)
        assert len(rows) > 5
        labels[rows[:pixels], columns[:pixels]] = 0
        submit(app, study, labels, names)
    rows = {row.study: row for row in session_rows(app.recorder.journal)}
    accepted, corrected = rows["s2"], rows["s3"]
    assert (accepted.slices, accepted.slices_unchanged, accepted.voxels_changed) == (1, 1, 0)
    assert (corrected.slices, corrected.slices_unchanged, corrected.voxels_changed) == (1, 0, 5)
    assert accepted.structure == "head" and accepted.requests == 1 and accepted.adapter == "atto-1"
    assert set(accepted.supports.split(";")) == {"s0", "s1"}

    out = [tmp_path / "report.csv", tmp_path / "report.png"]
    assert session_report.main(["--studies", app.studies, "--csv", str(out[0]), "--plot", str(out[1])]) == 0
    with open(out[0], newline="") as file:
        assert {line["study"] for line in csv.DictReader(file)} == {"s2", "s3"}
    assert Image.open(out[1]).format == "PNG"


def test_a_label_without_a_proposal_is_all_change(app):
    labels = np.zeros((48, 64), np.uint8)
    labels[5:15, 5:15] = 1
    submit(app, "s2", labels, {"head": 1})
    (row,) = session_rows(app.recorder.journal)
    assert (row.requests, row.slices, row.slices_unchanged, row.voxels, row.voxels_changed) == (0, 1, 0, 100, 100)


def test_studies_that_no_server_has_served(tmp_path, capsys):
    assert session_report.main(["--studies", str(tmp_path)]) == 2
    assert "journal.jsonl" in capsys.readouterr().err
