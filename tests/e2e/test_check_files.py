"""Every file of a folder through a server of its own: what goes through is counted, what is refused is named."""

import json
import shutil

import check_files
import numpy as np
import pytest
from dicom_files import save_series
from labelled_folders import write_plain_images, write_volumes
from PIL import Image
from tiny_atto import weights

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Right files of several kinds; an image cut short, a label of another size and one in colours."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    plain_images = write_plain_images(folder / "images", groups=6)
    shutil.copytree(plain_images / "masks", plain_images / "second")
    (plain_images / "images/g2_0.png").write_bytes((plain_images / "images/g2_0.png").read_bytes()[:300])
    Image.new("L", (20, 20), 1).save(plain_images / "masks/g3_0.png")
    Image.new("RGB", (56, 48), (9, 8, 7)).save(plain_images / "masks/g4_0.png")
    write_volumes(folder / "volumes", count=3)
    (folder / "clinic").mkdir()
    for name in ("O'Brien.07.png", "patient.08.tif"):
        Image.fromarray(rng.integers(0, 255, (40, 40), np.uint8)).save(folder / "clinic" / name)
    for name in ("ct", "mr"):
        voxels = rng.integers(0, 900, (3, 32, 32), dtype=np.int16)
        save_series(folder / "export" / name, voxels, modality=name.upper(), series=f"1.2.{len(name)}.{ord(name[0])}")
    return folder


@pytest.mark.slow
def test_all_is_sent_and_what_is_refused_is_named(folder, tmp_path, capsys):
    report = tmp_path / "checked.json"
    conf = [word for pair in weights(tmp_path).items() for word in ("--conf", *map(str, pair))]
    arguments = [str(folder), "--json", str(report), *conf]
    assert check_files.main(arguments) == 0, capsys.readouterr().out
    said, found = capsys.readouterr().out, json.loads(report.read_text())
    counts = {
        name.partition("/")[2]: (each["images"], each["labels"], each["stand_ins"], each["inferences"])
        for name, each in found.items()
    }
    assert counts["volumes"] == (3, 3, 0, 3)
    assert counts["clinic"] == (2, 0, 2, 2) and counts["DICOM series"] == (2, 0, 2, 2)
    assert counts["images"] == (6, 12, 0, 5)
    refused = [(c["step"], c["file"]) for c in found[f"{folder.name}/images"]["complaints"]]
    assert refused == [
        ("infer", "images/g2_0.png"),
        ("label", "masks/g2_0.png"),  # nothing can be learnt from the label of a damaged image
        ("label", "masks/g3_0.png"),
        ("label", "masks/g4_0.png"),
    ]
    reasons = [c["reason"] for c in found[f"{folder.name}/images"]["complaints"]]
    for reason, words in zip(reasons, ("damaged", "damaged", "20 x 20", "colour"), strict=True):
        assert words in reason
    assert "refused infer of images/g2_0.png" in said and "4 refused, 0 failed" in said.splitlines()[-1]

    again = {name: each["seconds"] for name, each in found.items()}
    assert check_files.main(arguments) == 0
    assert {name: each["seconds"] for name, each in json.loads(report.read_text()).items()} == again


def test_what_is_no_folder_is_said(tmp_path, capsys):
    assert check_files.main([str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
