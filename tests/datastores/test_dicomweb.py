"""The datastore against a real Orthanc, and what can be said of it where none is installed."""

import io
import time
from pathlib import Path

import numpy as np
import orthanc
import pydicom
import pytest
from dicom_files import US, US_FRAMES, dicom, save_series, seg
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX, DICOMWebDatastore
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, generate_uid
from torch.distributed.elastic.utils.distributed import get_free_port

from proxyprompt.datastores.dicomweb import DicomWebStudies, open_archive
from proxyprompt.io.dicom_seg_writer import write_seg
from proxyprompt.io.study import read_study
from proxyprompt.requests.safety import guard, image_path
from proxyprompt.server.answers import status_of

RNG = np.random.default_rng(3)
FILTER = {"Modality": "CT,MR,US,OP,XC"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    if orthanc.missing():
        pytest.skip(orthanc.missing())
    with orthanc.running(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def ct(archive, tmp_path):
    """A new CT series in the archive, and its folder of files."""
    folder = save_series(tmp_path / "ct", RNG.integers(0, 3000, (4, 8, 9)).astype(np.uint16), series=generate_uid())
    for file in folder.iterdir():
        ds = pydicom.dcmread(file)
        ds.PatientID, ds.StudyInstanceUID = f"P-{ds.SeriesInstanceUID[-6:]}", f"{ds.SeriesInstanceUID[:-2]}"
        ds.save_as(file)
    archive.push(folder)
    uid = str(ds.SeriesInstanceUID)
    yield uid, folder
    archive.delete_series(uid)


def opened(archive, tmp_path, name="cache", **options):
    client = DICOMwebClientX(url=archive.dicomweb)
    search = options.pop("search_filter", FILTER)
    return guard(DicomWebStudies(client, search, cache_path=str(tmp_path / name), **options))


def drawn(folder, tmp_path, **boxes):
    """A SEG file with named boxes (slices of columns, rows, slices)."""
    masks = {name: np.zeros((9, 8, 4), bool) for name in boxes}
    for name, box in boxes.items():
        masks[name][box] = True
    return write_seg(folder, masks, tmp_path / f"{generate_uid()}.dcm")


def label_of(store, uid):
    study = read_study(store.get_image_uri(uid))
    return study.read_label(store.get_label_uri(uid, "final"))


BOX, OTHER = np.s_[1:4, 2:5, 1:3], np.s_[5:8, 1:6, 2:4]


def test_images_are_listed_and_fetched_whole(archive, ct, tmp_path):
    uid, folder = ct
    store = opened(archive, tmp_path)
    assert isinstance(store, DICOMWebDatastore) and uid in store.list_images()
    here = Path(store.get_image_uri(uid))
    assert len(list(here.iterdir())) == 4
    assert read_study(here).content_hash == read_study(folder).content_hash
    assert store.get_image_info(uid)["PatientID"] == f"P-{uid[-6:]}"
    assert store.get_image_info(uid)["Modality"] == "CT"
    assert not list(here.parent.glob(".fetch-*"))
    assert image_path(store, uid) == str(here)


def test_a_seg_is_never_an_image(archive, ct, tmp_path):
    uid, folder = ct
    archive.push(drawn(folder, tmp_path, liver=BOX))
    store = opened(archive, tmp_path, search_filter={})
    assert uid in store.list_images()
    assert not any(store.get_image_info(i)["Modality"] == "SEG" for i in store.list_images())


def test_a_new_series_shows_within_the_expiry(archive, tmp_path):
    store = opened(archive, tmp_path, expiry=3)
    before = set(store.list_images())
    late = save_series(tmp_path / "late", RNG.integers(0, 9, (2, 8, 9)).astype(np.uint16), series=generate_uid())
    archive.push(late)
    assert set(store.list_images()) == before
    end = time.monotonic() + 60
    while set(store.list_images()) == before and time.monotonic() < end:
        time.sleep(0.5)
    (new,) = set(store.list_images()) - before
    archive.delete_series(new)


def test_an_image_that_is_not_there(archive, tmp_path):
    store = opened(archive, tmp_path)
    assert store.get_image_uri("1.2.3.99") == ""
    with pytest.raises(ImageNotFoundException):
        image_path(store, "1.2.3.99")
    with pytest.raises(MONAILabelException, match=r"."):
        store.get_image_uri("../1.2.3")


def test_a_label_stored_by_the_app_is_a_seg_with_names(archive, ct, tmp_path):
    uid, folder = ct
    store = opened(archive, tmp_path, expiry=1000)
    assert uid in store.get_unlabeled_images()
    study = read_study(folder)
    labels = np.zeros((4, 8, 9), np.uint8)
    labels[1, 2:4, 3:6], labels[2, 5, 5] = 7, 3
    study.write_label(labels, tmp_path / "label.nii.gz")
    names = [{"name": "Liver", "idx": 7}, {"name": "odd thing", "idx": 3}]
    store.save_label(uid, str(tmp_path / "label.nii.gz"), "final", {"label_info": names, "user": "anna"})
    assert uid in store.get_labeled_images() and uid not in store.get_unlabeled_images()
    stored = [pydicom.dcmread(io.BytesIO(f)) for f in archive.instances(Modality="SEG")]
    (mine,) = [s for s in stored if s.ReferencedSeriesSequence[0].SeriesInstanceUID == uid]
    assert [s.SegmentLabel for s in mine.SegmentSequence] == ["Liver", "odd thing"]
    back = label_of(store, uid)
    assert np.array_equal(back == 1, labels == 7) and np.array_equal(back == 2, labels == 3)
    assert store.get_label_info(uid, "final")["user"] == "anna"


def test_labels_that_cannot_be_stored(archive, ct, tmp_path):
    uid, folder = ct
    store = opened(archive, tmp_path)
    study = read_study(folder)
    study.write_label(np.zeros((4, 8, 9), np.uint8), tmp_path / "empty.nii.gz")
    with pytest.raises(MONAILabelException) as caught:
        store.save_label(uid, str(tmp_path / "empty.nii.gz"), "final", {})
    assert "empty and names no structure" in caught.value.msg
    other = read_study(save_series(tmp_path / "other", RNG.integers(0, 9, (4, 5, 5)).astype(np.uint16)))
    other.write_label(np.ones((4, 5, 5), np.uint8), tmp_path / "misfit.nii.gz")
    with pytest.raises(MONAILabelException) as caught:
        store.save_label(uid, str(tmp_path / "misfit.nii.gz"), "final", {})
    assert "grid" in caught.value.msg and caught.value.error is MONAILabelError.INVALID_INPUT
    assert uid not in store.get_labeled_images()


def test_the_newest_of_several_segs_is_the_label(archive, ct, tmp_path):
    uid, folder = ct
    announced = []
    store = opened(archive, tmp_path, expiry=1000, on_new_label=announced.append)
    first, second = drawn(folder, tmp_path, liver=BOX), drawn(folder, tmp_path, liver=OTHER)
    archive.push(second, first)  # the other way round than they were made
    store.sync()
    assert np.array_equal(label_of(store, uid) > 0, read_study(folder).read_label(second) > 0)
    third = drawn(folder, tmp_path, spleen=BOX)
    ds = pydicom.dcmread(third)
    ds.ContentDate = ds.SeriesDate = "19990101"  # a workstation whose clock is wrong
    ds.save_as(third)
    archive.push(third)
    assert store.get_label_info(uid, "final")["SOPInstanceUID"] != ds.SOPInstanceUID
    store.stored_elsewhere()
    assert store.get_label_info(uid, "final")["SOPInstanceUID"] == ds.SOPInstanceUID
    assert np.array_equal(label_of(store, uid) > 0, read_study(folder).read_label(third) > 0)
    assert announced == [uid]  # the labels of the first listing are no news


def test_a_label_of_our_own_is_no_news(archive, ct, tmp_path):
    uid, folder = ct
    announced = []
    store = opened(archive, tmp_path, expiry=0, on_new_label=announced.append)
    store.sync()
    read_study(folder).write_label(np.ones((4, 8, 9), np.uint8), tmp_path / "label.nii.gz")
    store.save_label(uid, str(tmp_path / "label.nii.gz"), "final", {"label_info": [{"name": "body", "idx": 1}]})
    store.sync()
    assert uid in store.get_labeled_images() and announced == []


def test_slices_as_the_viewer_sends_them(archive, ct, tmp_path):
    uid, folder = ct
    store, image = opened(archive, tmp_path), read_study(folder)
    labels = RNG.integers(0, 3, (4, 8, 9)).astype(np.uint8)
    labels[:, 0, 0], labels[:, 0, 1] = 1, 2
    turned = [3, 1, 0, 2]
    (tmp_path / "label.bin").write_bytes(labels[turned].tobytes())
    info = {
        "label_info": [{"name": "one", "idx": 1}, {"name": "two", "idx": 2}],
        "instances": [[uid, str(frame)] for uid, frame in (image.instances[n] for n in turned)],
    }
    store.save_label(uid, str(tmp_path / "label.bin"), "final", info)
    assert np.array_equal(label_of(store, uid), labels)
    for change, words in (({"instances": info["instances"][:3]}, "names 3 slices"), ({"instances": None}, "names 0")):
        with pytest.raises(MONAILabelException) as caught:
            store.save_label(uid, str(tmp_path / "label.bin"), "final", {**info, **change})
        assert words in caught.value.msg
    (tmp_path / "label.bin").write_bytes(b"short")
    with pytest.raises(MONAILabelException) as caught:
        store.save_label(uid, str(tmp_path / "label.bin"), "final", info)
    assert "5 bytes, expected 9 x 8 x 4" in caught.value.msg


def test_a_label_that_was_deleted_in_the_archive_goes(archive, ct, tmp_path):
    uid, folder = ct
    file = drawn(folder, tmp_path, liver=BOX)
    archive.push(file)
    store = opened(archive, tmp_path, expiry=0)
    path = Path(store.get_label_uri(uid, "final"))
    assert path.exists()
    archive.delete_series(str(pydicom.dcmread(file).SeriesInstanceUID))
    store.sync()
    assert uid not in store.get_labeled_images() and not path.exists()
    assert not store.get_label_uri(uid, "final")


def test_labels_from_elsewhere_are_fetched_without_being_asked_for(archive, ct, tmp_path):
    uid, folder = ct
    store = opened(archive, tmp_path, expiry=0)
    archive.push(drawn(folder, tmp_path, liver=BOX))
    end = time.monotonic() + 60
    while not store.get_label_info(uid, "final") and time.monotonic() < end:
        store.status()
        time.sleep(0.1)
    assert store.get_label_info(uid, "final")["SOPInstanceUID"]


def test_the_cache_folder_is_taken_up_again(archive, ct, tmp_path):
    uid, folder = ct
    archive.push(drawn(folder, tmp_path, liver=BOX))
    first = opened(archive, tmp_path)
    label = Path(first.get_label_uri(uid, "final"))
    before = label.stat().st_mtime_ns
    again = opened(archive, tmp_path)
    again.sync()
    assert Path(again.get_label_uri(uid, "final")).stat().st_mtime_ns == before
    (entry,) = [e for e in again.datalist() if uid in e["image"]]
    assert entry == {"image": again.get_image_uri(uid), "label": str(label)}


@pytest.mark.parametrize(("sop", "frames"), [(US, None), (US_FRAMES, 3)])
def test_ultrasound_is_read_and_labelled(archive, tmp_path, sop, frames):
    shape = (frames, 20, 24, 3) if frames else (20, 24, 3)
    image = dicom(RNG.integers(0, 255, shape).astype(np.uint8), sop=sop, modality="US", frames=frames)
    image.SeriesInstanceUID, image.StudyInstanceUID = generate_uid(), generate_uid()
    image.save_as(tmp_path / "us.dcm")
    archive.push(tmp_path / "us.dcm")
    uid = image.SeriesInstanceUID
    store = opened(archive, tmp_path)
    study = read_study(store.get_image_uri(uid))
    assert (study.kind, study.modality, len(study)) == ("cine" if frames else "image", "US", frames or 1)
    labels = np.zeros((len(study), 20, 24), np.uint8)
    labels[-1, 3:9, 4:17] = 2
    study.write_label(labels, tmp_path / "label.nrrd")
    store.save_label(uid, str(tmp_path / "label.nrrd"), "final", {"label_info": [{"name": "head", "idx": 2}]})
    assert np.array_equal(label_of(store, uid) > 0, labels > 0)
    archive.delete_series(uid)


def test_a_compressed_clip_is_read_as_it_was_stored(archive, tmp_path):
    """Most ultrasound machines store their clips so."""
    rows, columns = np.mgrid[:32, :48]
    frames = [np.stack([rows * 5, columns * 4, np.full_like(rows, 90 + n * 40)], axis=-1) for n in range(3)]
    clip = dicom(np.stack(frames).astype(np.uint8), sop=US_FRAMES, modality="US", frames=3)
    clip.SeriesInstanceUID, clip.StudyInstanceUID = generate_uid(), generate_uid()
    encoded = [io.BytesIO() for _ in frames]
    for frame, file in zip(frames, encoded, strict=True):
        Image.fromarray(frame.astype(np.uint8)).save(file, "JPEG", quality=95)
    clip.PixelData = encapsulate([file.getvalue() for file in encoded])
    clip["PixelData"].is_undefined_length = True
    clip.file_meta.TransferSyntaxUID, clip.PhotometricInterpretation = JPEGBaseline8Bit, "YBR_FULL_422"
    clip.save_as(tmp_path / "clip.dcm", write_like_original=False)
    archive.push(tmp_path / "clip.dcm")
    study = read_study(opened(archive, tmp_path).get_image_uri(clip.SeriesInstanceUID))
    assert (study.kind, len(study), study.modality) == ("cine", 3, "US")
    shown = study.images(range(3)).transpose(0, 2, 3, 1) * 255
    assert np.abs(shown - np.stack(frames)).mean() < 6
    archive.delete_series(clip.SeriesInstanceUID)


def test_a_seg_of_nobody_is_passed_over(archive, ct, tmp_path):
    uid, _ = ct
    stray = seg(np.ones((1, 8, 9), bool), [1], [1], {1: "liver"})
    stray.SeriesInstanceUID = generate_uid()
    stray.save_as(tmp_path / "stray.dcm")
    archive.push(tmp_path / "stray.dcm")
    assert uid not in opened(archive, tmp_path).get_labeled_images()
    archive.delete_series(stray.SeriesInstanceUID)


def test_other_tags_stay_on_this_machine(archive, ct, tmp_path):
    uid, folder = ct
    store = opened(archive, tmp_path)
    read_study(folder).write_label(np.ones((4, 8, 9), np.uint8), tmp_path / "label.nii.gz")
    store.save_label(uid, str(tmp_path / "label.nii.gz"), "original", {})
    assert Path(store.get_label_uri(uid, "original")).name == f"{uid}.nii.gz"
    assert uid not in store.get_labeled_images()


def test_the_archive_as_the_settings_name_it(archive, ct, monkeypatch, tmp_path):
    uid, _ = ct
    for modalities, listed in (("CT", True), ("MR,CT", True), ("MR", False), ("MR,US", False)):
        given = {"CACHE_PATH": str(tmp_path), "SEARCH_FILTER": {"Modality": modalities}}
        changed = settings.model_copy(update={f"MONAI_LABEL_DICOMWEB_{name}": value for name, value in given.items()})
        monkeypatch.setattr("proxyprompt.datastores.dicomweb.settings", changed)  # others see what they had
        assert (uid in open_archive(archive.dicomweb).list_images()) is listed


def test_an_archive_that_does_not_answer(tmp_path):
    nobody = orthanc.Orthanc(f"http://127.0.0.1:{get_free_port()}")
    store = opened(nobody, tmp_path)
    with pytest.raises(MONAILabelException) as caught:
        store.list_images()
    assert nobody.dicomweb in caught.value.msg and status_of(caught.value) == 503
    assert "is not running" in caught.value.msg and "Error" not in caught.value.msg


def test_what_viewers_download_lies_on_the_grid_of_the_series(archive, ct, tmp_path):
    uid, folder = ct
    store = opened(archive, tmp_path)
    assert store.get_image_uri(uid).endswith(uid)
    path = store.exported_image(uid)
    assert path.name == store.get_image_info(uid)["name"] == f"{uid}.nii.gz" and path == store.exported_path(uid)
    assert read_study(path, modality="CT").content_hash == read_study(folder).content_hash
    labels = RNG.integers(0, 2, (4, 8, 9)).astype(np.uint8)
    read_study(path, modality="CT").write_label(labels, tmp_path / "label.nii.gz")
    store.save_label(uid, str(tmp_path / "label.nii.gz"), "final", {"label_info": [{"name": "body", "idx": 1}]})
    assert np.array_equal(label_of(store, uid), labels)
    assert store.exported_image("1.2.3.99") is None
    assert uid in opened(archive, tmp_path).list_images()  # the copy beside is no image of its own


SECONDARY, RAW = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.66"


def test_what_has_pixels_is_an_image_whatever_it_is_called(archive, tmp_path):
    image = dicom(RNG.integers(0, 255, (20, 24)).astype(np.uint8), sop=SECONDARY, modality="OT")
    other = dicom(RNG.integers(0, 255, (20, 24)).astype(np.uint8), sop=SECONDARY, modality="HC")
    raw = dicom(RNG.integers(0, 255, (20, 24)).astype(np.uint8), sop=RAW, modality="MR")
    for name in ("PixelData", "Rows", "Columns"):
        delattr(raw, name)
    for number, ds in enumerate((image, other, raw)):
        ds.SeriesInstanceUID, ds.StudyInstanceUID = generate_uid(), generate_uid()
        ds.save_as(tmp_path / f"{number}.dcm", write_like_original=False)
        archive.push(tmp_path / f"{number}.dcm")
    store = opened(archive, tmp_path, search_filter={})
    assert {image.SeriesInstanceUID, other.SeriesInstanceUID} <= set(store.list_images())
    assert raw.SeriesInstanceUID not in store.list_images()
    study = read_study(store.get_image_uri(image.SeriesInstanceUID))
    labels = np.zeros((1, 20, 24), np.uint8)
    labels[0, 3:9, 4:17] = 1
    study.write_label(labels, tmp_path / "label.nii.gz")
    info = {"label_info": [{"name": "head", "idx": 1}]}
    store.save_label(image.SeriesInstanceUID, str(tmp_path / "label.nii.gz"), "final", info)
    assert np.array_equal(label_of(store, image.SeriesInstanceUID), labels)
    for ds in (image, other, raw):
        archive.delete_series(ds.SeriesInstanceUID)


def test_labels_before_the_last_one_are_known_and_come_back(archive, ct, tmp_path):
    uid, folder = ct
    store, image = opened(archive, tmp_path), read_study(folder)
    assert store.label_versions(uid) == [] and store.current_label(uid) is None
    drawn_by = {}
    for who, value in (("anna", 1), ("bert", 2)):
        labels = np.zeros((4, 8, 9), np.uint8)
        labels[value] = 1
        image.write_label(labels, tmp_path / "label.nii.gz")
        names = [{"name": f"organ {value}", "idx": 1}]
        store.save_label(uid, str(tmp_path / "label.nii.gz"), "final", {"label_info": names, "user": who})
        drawn_by[who] = labels
    now, before = store.label_versions(uid)
    assert (now.by, now.structures, now.current) == ("bert", ("organ 2",), True)
    assert (before.by, before.structures, before.current) == ("anna", ("organ 1",), False)
    assert now == store.current_label(uid) and now.version == store.last_labels()[uid].version
    assert now.time.endswith("+00:00") and now.series != before.series
    assert np.array_equal(image.read_label(store.version_file(uid, before.version)), drawn_by["anna"])
    store.restore_label(uid, before.version, "carl")
    assert np.array_equal(label_of(store, uid), drawn_by["anna"])
    assert [(v.by, v.current) for v in store.label_versions(uid)] == [("carl", True), ("bert", False), ("anna", False)]
    elsewhere = opened(archive, tmp_path, "other")  # another server on the archive knows it all too
    assert [v.by for v in elsewhere.label_versions(uid)] == ["carl", "bert", "anna"]
    with pytest.raises(ImageNotFoundException):
        store.version_file(uid, "1.2.3")


def test_a_label_waits_here_for_an_archive_that_is_away(tmp_path):
    if orthanc.missing():
        pytest.skip(orthanc.missing())
    folder = save_series(tmp_path / "ct", RNG.integers(0, 3000, (4, 8, 9)).astype(np.uint16), series=generate_uid())
    uid = str(pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID)
    labels = RNG.integers(0, 2, (4, 8, 9)).astype(np.uint8)
    read_study(folder).write_label(labels, tmp_path / "label.nii.gz")
    info = {"label_info": [{"name": "body", "idx": 1}], "user": "anna"}
    with orthanc.running(tmp_path / "orthanc") as server:
        server.push(folder)
        port = int(server.url.rpartition(":")[2])
        store = opened(server, tmp_path, expiry=0)
        store.get_image_uri(uid)
    begun = time.monotonic()
    assert store.list_images() == [uid] and store.status()["archive"]["problem"]
    assert Path(store.get_image_uri(uid)).is_dir()  # what is here can be worked on
    store.save_label(uid, str(tmp_path / "label.nii.gz"), "final", info)
    assert time.monotonic() - begun < 5
    assert store.get_labeled_images() == [uid] and store.status()["archive"]["waiting"] == [uid]
    assert np.array_equal(label_of(store, uid), labels)
    assert not store.current_label(uid).handed_over and store.label_versions(uid)[0].by == "anna"
    store = opened(server, tmp_path, expiry=0)  # a server that was stopped meanwhile still has it
    with orthanc.running(tmp_path / "orthanc", port) as server:
        end = time.monotonic() + 60
        while store.status().get("archive") and time.monotonic() < end:
            time.sleep(0.5)
        (stored,) = [pydicom.dcmread(io.BytesIO(f)) for f in server.instances(Modality="SEG")]
        assert stored.ContentCreatorName == "anna"
        assert store.current_label(uid).handed_over and store.get_labeled_images() == [uid]
        store.sync()
        assert np.array_equal(label_of(store, uid), labels)


def test_a_label_that_was_elsewhere_deleted_after_it_had_waited_goes(archive, ct, tmp_path):
    uid, folder = ct
    store = opened(archive, tmp_path, expiry=0)
    read_study(folder).write_label(np.ones((4, 8, 9), np.uint8), tmp_path / "label.nii.gz")
    store.save_label(uid, str(tmp_path / "label.nii.gz"), "final", {"label_info": [{"name": "body", "idx": 1}]})
    archive.delete_series(store.current_label(uid).series)
    store.sync()
    assert store.current_label(uid) is None and uid in store.get_unlabeled_images()
