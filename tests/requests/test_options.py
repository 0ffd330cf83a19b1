"""What requests may say, as viewers really send it."""

import pytest
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException

from proxyprompt.requests.options import Choices, Options, drop_downs, parse_options

CHOICES = Choices(supports=("a", "b"), structures=("liver", "spleen"), adapters=("atto-1", "adapter-x"), count=4)


def parse(request):
    return parse_options(request, adapters=CHOICES.adapters, count=CHOICES.count)


def test_an_empty_request_means_the_defaults():
    assert parse({"model": "proxyprompt", "image": "x"}) == Options()


def test_untouched_drop_downs_that_come_as_whole_lists_mean_their_first_entry():
    assert parse(drop_downs(CHOICES)) == Options(adapter="atto-1")


def test_the_configured_number_of_supports_leads_its_drop_down():
    assert drop_downs(CHOICES)["supports"] == ["4", "1", "2", "8", "16"]
    other = Choices(supports=(), structures=(), adapters=("x",), count=3)
    assert drop_downs(other)["supports"] == ["3", "1", "2", "4", "8", "16"]


def test_what_a_viewer_changed_comes_as_text():
    request = {
        "support": "b",
        "structure": "spleen",
        "supports": "2",
        "adapter": "adapter-x",
        "agreement": "false",
        "everywhere": "true",
        "corrected": "7, 3",
        "mode": "propagate",
        "clean": "true",
        "result_extension": ".nrrd",
        "result_dtype": "uint8",
        "result_compress": False,
        "restore_label_idx": False,
    }
    expected = Options(("b",), ("spleen",), 2, "adapter-x", False, True, ".nrrd", (7, 3), "propagate", True)
    assert parse(request) == expected


def test_several_supports_and_structures():
    options = parse({"support": ["b", "a", "b"], "structure": ["spleen", "liver"]})
    assert options.support == ("b", "a")
    assert options.structures == ("spleen", "liver")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"suport": "a"}, ["suport", "support", "structure", "supports", "adapter"]),
        ({"path": "/etc/passwd"}, ["path"]),
        ({"mode": "backwards"}, ["backwards", "slice by slice", "propagate"]),
        ({"structure": ["liver", 3]}, ["3"]),
        ({"structure": 3}, ["3"]),
        ({"supports": "many"}, ["many", "1 to 64"]),
        ({"supports": 0}, ["1 to 64"]),
        ({"supports": 65}, ["1 to 64"]),
        ({"supports": 2.5}, ["2.5"]),
        ({"supports": True}, ["True"]),
        ({"adapter": "adapter-y"}, ["adapter-y", "atto-1", "adapter-x"]),
        ({"agreement": "perhaps"}, ["perhaps"]),
        ({"result_extension": ".dcm"}, [".dcm", ".nii.gz", ".nrrd"]),
        ({"result_extension": "/../x.nrrd"}, [".nrrd"]),
        ({"result_dtype": "float32"}, ["float32", "uint8"]),
        ({"support": "../secret"}, ["../secret", "path"]),
        ({"support": ["a", 7]}, ["7"]),
    ],
)
def test_anything_else_is_refused_with_the_valid_ones(request_, words):
    with pytest.raises(MONAILabelException) as caught:
        parse(request_)
    assert caught.value.error is MONAILabelError.INVALID_INPUT
    assert all(word in caught.value.msg for word in words)
