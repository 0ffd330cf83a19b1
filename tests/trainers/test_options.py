"""What a request for training may say."""

import pytest
from monailabel.interfaces.exception import MONAILabelException

from proxyprompt.trainers.options import MINUTES, NO_LIMIT, parse_train_options, train_drop_downs
from proxyprompt.training.finetune_config import FinetuneConfig

DEFAULTS = FinetuneConfig.defaults("atto")
PARENTS, UNPROVEN = ["adapter-2", "atto-1"], ["adapter-3"]


def parse(**request):
    return parse_train_options(
        {"model": "proxyprompt", **request}, task="proxyprompt", defaults=DEFAULTS, parents=PARENTS, unproven=UNPROVEN
    )


def refused(**request):
    with pytest.raises(MONAILabelException) as caught:
        parse(**request)
    return caught.value.msg


def test_a_dialog_that_was_left_alone_means_the_defaults():
    dialog = train_drop_downs(DEFAULTS, structures=["cup"], parents=PARENTS, unproven=UNPROVEN)
    untouched = parse(**dialog)
    assert untouched.config == parse().config == DEFAULTS.with_options(max_minutes=MINUTES)
    assert untouched.structures is None
    assert untouched.parent == "adapter-2"
    assert untouched.processes is None
    assert untouched.publish is None and not untouched.publish_unproven and not untouched.train_unchanged


def test_what_was_changed_counts():
    options = parse(max_epochs="3", max_minutes=1.5, learning_rate="1e-3", trainable="lora", structures="cup", rank=8)
    assert (options.config.max_epochs, options.config.max_minutes, options.config.rank) == (3, 1.5, 8)
    assert options.config.learning_rate == options.config.rate == 1e-3
    assert options.config.trainable == "lora"
    assert options.structures == ("cup",)
    assert parse(structures=["cup", "disc"]).structures == ("cup", "disc")
    assert parse(trainable="all", learning_rate="auto").config.learning_rate is None
    assert parse(max_minutes=NO_LIMIT).config.max_minutes is None
    assert parse(publish="even if unproven").publish_unproven
    assert parse(publish="adapter-3").publish == "adapter-3"
    assert parse(parent="atto-1").parent == "atto-1"
    assert parse(train_unchanged="true").train_unchanged
    assert parse(processes="2").processes == 2
    assert parse(multi_gpu=False).processes == 1


def test_the_request_as_the_server_sends_it_when_it_trains_all():
    assert parse(proxyprompt={"max_epochs": 3}, max_epochs=3, local_rank=0, gpus="all").config.max_epochs == 3


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"epochs": 3}, ["'epochs'", "max_epochs"]),
        ({"max_epochs": "many"}, ["max_epochs", "'many'", "whole number"]),
        ({"max_epochs": 2.5}, ["2.5"]),
        ({"max_epochs": True}, ["True"]),
        ({"max_minutes": -1}, ["-1", NO_LIMIT]),
        ({"learning_rate": "nan"}, ["learning_rate", "'auto'"]),
        ({"trainable": "some"}, ["some", "lora"]),
        ({"parent": "adapter-9"}, ["adapter-9", "adapter-2, atto-1"]),
        ({"publish": "adapter-9"}, ["adapter-9", "if proven", "adapter-3"]),
        ({"train_unchanged": "maybe"}, ["maybe"]),
        ({"processes": 0.5}, ["processes", "whole number", "'auto'"]),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(request_, words):
    message = refused(**request_)
    assert all(word in message for word in words), message
