"""What may be noted with an image or a label."""

import json

import pytest
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException

from proxyprompt.datastores.noted import check_info, check_json, fitting

GOOD = [
    {},
    {"PatientID": "P1", "note": ["a", {"b": None}], "ts": 3, "weight": 1.5},
    {"label_info": [{"name": "disc", "idx": 1}, {"name": "cup"}]},
    {"params": {"label_names": {"disc": 1}, "label_info": None}, "model": "proxyprompt"},
    {"label_names": {"disc": 1, "cup": [2, "3"], "4": "rim"}},
    {"strategy": {"random": {"ts": 1, "client_id": None}}},
    {"support_disagreement": {"pool": "x", "error": "why"}},
    {"support_disagreement": {"score": 0.5, "content": "abc"}},
    {"support_quality": {"dice": {"disc": 0.9}, "flagged": ["disc"], "label": "abc"}},
]
BAD = [
    *({"label_info": value} for value in (5, "disc", {"name": "disc"}, ["disc"], [["disc", 1]])),
    *({"label_names": value} for value in (5, ["disc"], {"disc": "one"}, {"disc": 400}, {"disc": []}, {"disc": None})),
    *({"params": value} for value in (5, [], {"label_info": 5}, {"label_names": []})),
    *({"strategy": value} for value in (5, [], "random", {"random": 3}, {"random": {"ts": "now"}})),
    *({"support_disagreement": value} for value in (5, {"score": "high", "content": "x"}, {"score": 0.5})),
    *({"support_quality": value} for value in ([], {"dice": 3}, {"dice": {"disc": None}}, {"flagged": [["x"]]})),
]


@pytest.mark.parametrize("info", GOOD)
def test_what_clients_and_the_app_note(info):
    check_info(info)
    assert fitting(info) == info


@pytest.mark.parametrize("info", BAD)
def test_what_nobody_could_use_is_refused_with_the_form(info):
    with pytest.raises(MONAILabelException) as caught:
        check_info(info)
    assert caught.value.error is MONAILabelError.INVALID_INPUT
    (key,) = info
    assert key in caught.value.msg and "send it as" in caught.value.msg
    assert fitting({**info, "note": 1}) == {"note": 1}


@pytest.mark.parametrize("info", [None, [], "text", 3, [{}]])
def test_what_is_no_object(info):
    with pytest.raises(MONAILabelException) as caught:
        check_info(info)
    assert "JSON object" in caught.value.msg


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-1e999", '"\\ud800"', "[" * 60 + "]" * 60, '{"\\udfff": 1}'])
def test_what_other_readers_of_json_do_not_take(text):
    value = json.loads(text)
    for inside in (value, {"a": [value]}):
        with pytest.raises(MONAILabelException):
            check_json(inside)


def test_what_every_reader_takes():
    check_json({"a": [1, 2.5, None, True, "näme \U0001f9e0", {"b": {}}], "c": -1e300})
