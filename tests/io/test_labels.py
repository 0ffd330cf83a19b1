"""Where the names of label values come from, and how masks become one map."""

import json
import logging

import numpy as np
import pytest

from proxyprompt.io.errors import StudyError
from proxyprompt.io.labels import StructureRegistry, declared_structures, find_dataset_json, merge, parse_labels

INFO = [{"name": "rim", "idx": 1}, {"name": "cup", "idx": 2}]
SEGMENTS = {1: "seg rim", 2: "seg cup"}
DATASET = {"name": "eyes", "labels": {"background": 0, "set rim": 1, "set cup": 2}}
OPTION = "conf rim=1,conf cup=2"


def declared(values=(1, 2), **sources):
    return declared_structures("label.nii.gz", values=values, **sources)


def test_the_first_source_that_names_anything_is_taken():
    sources = {"segment_names": SEGMENTS, "label_info": INFO, "dataset_json": DATASET, "conf_labels": OPTION}
    for prefix in ("seg ", "", "set ", "conf "):
        assert declared(**sources) == {f"{prefix}rim": {1}, f"{prefix}cup": {2}}
        sources.pop(next(iter(sources)))
    assert declared(label_info=[], segment_names={}, dataset_json={}, conf_labels=OPTION) == declared(
        conf_labels=OPTION
    )


def test_without_a_source_values_get_numbered_names_and_one_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert declared([0, 3, 7]) == {"label_3": {3}, "label_7": {7}}
    assert len(caplog.records) == 1
    assert "label.nii.gz" in caplog.text and "3, 7" in caplog.text and "--conf labels" in caplog.text


def test_values_that_the_source_forgot_are_numbered(caplog):
    with caplog.at_level(logging.WARNING):
        assert declared([1, 2, 5], label_info=INFO) == {"rim": {1}, "cup": {2}, "label_5": {5}}
    assert "label value 5" in caplog.text


def test_a_structure_may_be_declared_absent():
    assert declared([1], label_info=INFO) == {"rim": {1}, "cup": {2}}
    assert declared([], label_info=INFO) == {"rim": {1}, "cup": {2}}
    assert declared([], segment_names=SEGMENTS) == {"seg rim": {1}, "seg cup": {2}}


def test_label_info_as_viewers_save_it():
    assert declared([3, 8], label_info=[{"name": "a"}, {"name": "b", "color": [1, 2, 3]}]) == {"a": {3}, "b": {8}}
    assert declared([3], label_info=[{"name": "a"}, {"name": "b"}]) == {"a": {3}, "b": set()}
    assert declared([4, 9], label_info=[{"name": "a", "idx": 0}, {"name": "b", "idx": 1}]) == {"a": {4}, "b": {9}}
    assert declared([4, 9], label_info=[{"name": "a", "idx": 4}, {"name": "b", "idx": 2}]) == {
        "a": {4},
        "b": {2},
        "label_9": {9},
    }
    assert declared([1], label_info=[{"name": "background", "idx": 0}, {"name": "a", "idx": 1}]) == {"a": {1}}
    for saved in (
        {"label_info": INFO},
        {"params": {"label_info": INFO}},
        {"params": {"label_names": {"rim": 1, "cup": 2}}},
        {"label_names": {"rim": 1, "cup": 2}, "ts": 1},
    ):
        assert declared(label_info=saved) == {"rim": {1}, "cup": {2}}
    assert declared([1], label_info={"ts": 1, "name": "x.nii.gz", "params": {}}) == {"label_1": {1}}


def test_dataset_json_of_both_kinds(tmp_path):
    nnunet = {"labels": {"background": 0, "whole tumour": [1, 2], "core": 2, "ignore": 3}}
    assert declared([1, 2], dataset_json=nnunet) == {"whole tumour": {1, 2}, "core": {2}}
    decathlon = {"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}}
    (tmp_path / "dataset.json").write_text(json.dumps(decathlon))
    assert declared(dataset_json=tmp_path / "dataset.json") == {"Anterior": {1}, "Posterior": {2}}


def test_the_nearest_dataset_json_is_found(tmp_path):
    label = tmp_path / "studies" / "labels" / "final" / "a.nii.gz"
    label.parent.mkdir(parents=True)
    (tmp_path / "dataset.json").write_text("{}")
    assert find_dataset_json(label, tmp_path / "studies") is None
    (tmp_path / "studies" / "dataset.json").write_text("{}")
    assert find_dataset_json(label, tmp_path / "studies") == tmp_path / "studies" / "dataset.json"
    (label.parent / "dataset.json").write_text("{}")
    assert find_dataset_json(label, tmp_path / "studies") == label.parent / "dataset.json"


def test_option_as_text_and_as_file(tmp_path):
    wanted = ({"disc": {1, 2}, "cup": {2}}, {})
    assert parse_labels("disc=1+2, cup = 2,") == wanted
    assert parse_labels({"disc": [1, 2], "cup": 2}) == wanted
    for content in ({"disc": "1+2", "cup": 2}, {"labels": {"disc": [1, 2], "cup": "2"}}):
        (tmp_path / "names.json").write_text(json.dumps(content))
        assert parse_labels(str(tmp_path / "names.json")) == wanted
    assert parse_labels({"1": "liver"}) == ({"liver": {1}}, {})
    assert parse_labels("") == parse_labels(None) == ({}, {})


def test_structures_made_of_named_ones_go_with_every_source():
    option = "disc=Rim+CUP"
    assert declared(label_info=INFO, conf_labels=option)["disc"] == {1, 2}
    assert declared(conf_labels="rim=1,cup=2," + option) == {"rim": {1}, "cup": {2}, "disc": {1, 2}}
    assert "disc" not in declared([1], label_info=INFO[:1], conf_labels=option)  # the label knows nothing of the cup


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("disc", "expected name=value"),
        ("disc=1=2", "expected name=value"),
        ("disc=1+rim", "label values .1.2. or structure names"),
        ("disc=", "label values .1.2. or structure names"),
        ("disc=300", "0 to 255"),
        ("missing.json", "missing.json: label names cannot be read"),
        ({"disc": 1.5}, "names no label value"),
        ({"disc": {"a": 1}}, "names no label value"),
    ],
)
def test_options_that_cannot_be_understood(option, message):
    with pytest.raises(StudyError, match=message):
        parse_labels(option)


def test_dataset_json_that_is_damaged(tmp_path):
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(StudyError, match=r"dataset\.json: label names cannot be read"):
        declared(dataset_json=tmp_path / "dataset.json")
    (tmp_path / "dataset.json").write_text("[1]")
    with pytest.raises(StudyError, match="expected a JSON object"):
        declared(dataset_json=tmp_path / "dataset.json")


@pytest.fixture
def registry(tmp_path):
    registry = StructureRegistry(tmp_path / "structures.json")
    for name in ("unused", "disc", "cup", "vessel"):
        registry.ensure(name)
    return registry


def box(*rows_columns, value=1.0, shape=(1, 8, 8)):
    logits = np.full(shape, -3.0, np.float32)
    r0, r1, c0, c1 = rows_columns
    logits[:, r0:r1, c0:c1] = value
    return logits


def test_highest_logit_wins(registry):
    result = merge({"disc": box(0, 8, 0, 5, value=1), "vessel": box(0, 8, 3, 8, value=2)}, registry)
    assert result.dtype == np.uint8
    assert (result[0, 0] == [2, 2, 2, 4, 4, 4, 4, 4]).all()
    result = merge({"disc": box(0, 8, 0, 5, value=2), "vessel": box(0, 8, 3, 8, value=1)}, registry)
    assert (result[0, 0] == [2, 2, 2, 2, 2, 4, 4, 4]).all()


def test_nothing_positive_is_background(registry):
    assert not merge({"disc": box(0, 0, 0, 0), "cup": np.zeros((1, 8, 8))}, registry).any()


@pytest.mark.parametrize("kind", [np.float32, bool])
def test_nested_structures_lie_on_top_smallest_last(registry, kind):
    masks = {
        "vessel": box(4, 5, 4, 5, value=0.1),
        "disc": box(0, 8, 0, 8, value=9),
        "cup": box(2, 6, 2, 6, value=0.5),
    }
    if kind is bool:
        masks = {name: mask > 0 for name, mask in masks.items()}
    result = merge(masks, registry)
    assert np.array_equal(result == 4, box(4, 5, 4, 5) > 0)
    assert np.array_equal(result == 3, (box(2, 6, 2, 6) > 0) & ~(box(4, 5, 4, 5) > 0))
    assert (result > 0).all()


def test_neighbours_that_touch_are_not_nested(registry):
    result = merge({"disc": box(0, 8, 0, 5, value=5), "cup": box(0, 4, 4, 8, value=1)}, registry)
    assert (result[0, :, 4] == 2).all()


def test_merge_refuses(registry):
    with pytest.raises(StudyError, match="no mask"):
        merge({}, registry)
    with pytest.raises(StudyError, match="differ in shape"):
        merge({"disc": box(0, 1, 0, 1), "cup": np.zeros((8, 8))}, registry)
    with pytest.raises(StudyError, match="unknown structure 'liver'"):
        merge({"liver": box(0, 1, 0, 1)}, registry)
