"""Every `--conf` option is parsed, checked and described."""

from dataclasses import fields

import pytest
import torch

from proxyprompt.foundation import foundation_names
from proxyprompt.settings import Settings, SettingsError, usable_device


def test_text_becomes_values():
    settings = Settings.from_conf(
        {
            "foundation": "sam_vit_b",
            "image_size": "256",
            "supports": "8",
            "paper": "True",
            "allow_unverified_weights": "on",
            "weights_dir": "some/folder",
            "device": "cuda:1",
        }
    )
    assert (settings.foundation, settings.image_size, settings.supports) == ("sam_vit_b", 256, 8)
    assert settings.paper and settings.allow_unverified_weights
    assert settings.weights_dir.parts == ("some", "folder")
    assert settings.device == "cuda:1"


def test_no_options_are_the_defaults():
    assert Settings.from_conf({}) == Settings.from_conf(None) == Settings()


def test_an_unknown_option_lists_the_valid_ones():
    with pytest.raises(SettingsError) as caught:
        Settings.from_conf({"fundation": "atto"})
    message = str(caught.value)
    assert "fundation" in message
    assert all(f.name in message for f in fields(Settings))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("foundation", "sam3", foundation_names()),
        ("foundation", "atto-x", ["atto"]),
        ("image_size", "500", ["multiple of 64"]),
        ("image_size", "big", ["whole number"]),
        ("supports", "0", ["1 to 64"]),
        ("device", "gpu", ["cuda:N"]),
        ("paper", "si", ["true or false"]),
        ("cache_disk_mb", "-1", ["whole number"]),
        ("window", "muscle", ["lung", "percentile"]),
        ("window", "40,wide", ["centre,width"]),
        ("labels", "liver,spleen", ["name=value"]),
        ("models", "deepedit", ["proxyprompt"]),
    ],
)
def test_a_value_that_does_not_fit_says_what_does(key, value, expected):
    with pytest.raises(SettingsError) as caught:
        Settings.from_conf({key: value})
    assert key in str(caught.value) and value in str(caught.value)
    assert all(word in str(caught.value) for word in expected)


def test_keys_of_monai_label_itself_are_no_mistake():
    assert Settings.from_conf({"server_mode": "true"}) == Settings()
    assert Settings.from_conf({"models": "proxyprompt"}).models == "proxyprompt"


def test_a_given_atto_is_a_foundation():
    assert Settings.from_conf({"foundation": "atto-12"}).foundation == "atto-12"


def test_a_retired_option_is_accepted_with_a_warning(caplog):
    assert Settings.from_conf({"dense_proxy": "on", "paper": "true"}).paper
    assert "dense_proxy on' does nothing any more" in caplog.text


def test_the_description_names_every_option_and_default():
    described = Settings.describe().splitlines()
    assert [line.split()[1] for line in described] == [f.name for f in fields(Settings)]
    assert "(default: atto)" in described[0]


def test_the_device_is_one_that_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device("auto") == usable_device("cpu") == "cpu"
    with pytest.raises(SettingsError, match=r"device cuda:1.*no CUDA device"):
        Settings.from_conf({"device": "cuda:1"}).torch_device()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [usable_device(name) for name in ("auto", "cpu", "cuda:1")] == ["cuda", "cpu", "cuda:1"]
