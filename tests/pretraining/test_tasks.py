"""Folders of real tasks."""

import logging

import numpy as np
import pytest
from PIL import Image
from tiny_tasks import write_task

from proxyprompt.pretraining.tasks import PretrainingDataError, read_task, read_tasks, split_tasks, task_folders


def test_a_task_is_stretched_and_knows_its_groups(tasks):
    task = read_task(tasks / "a", 48)
    assert task.images.shape == (6, 3, 48, 48) and task.labels.shape == (6, 48, 48)
    assert task.values == [1] and task.groups == ("p0", "p0", "p1", "p1", "p2", "p2")
    inside = task.images[:, 0][task.labels == 1].float().mean()
    assert inside > task.images[:, 0][task.labels == 0].float().mean() + 60


def test_every_nth_task_is_held_back(tasks):
    folders = task_folders(tasks)
    train, back = split_tasks(folders, 2)
    assert [f.name for f in train] == ["a", "c"] and [f.name for f in back] == ["b"]
    assert split_tasks(folders, 0) == (folders, [])


def test_a_mask_of_another_size_leaves_the_task_out_and_says_so(tmp_path, caplog):
    write_task(tmp_path / "good")
    write_task(tmp_path / "bad")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "bad" / "masks" / "c2.png")
    with caplog.at_level(logging.WARNING):
        assert [task.name for task in read_tasks(task_folders(tmp_path), 32)] == ["good"]
    assert "bad is left out" in caplog.text and "c2" in caplog.text


def test_too_few_images_and_no_tasks_at_all(tmp_path, caplog):
    write_task(tmp_path / "few", cases=3)
    with pytest.raises(PretrainingDataError, match="none of 1 tasks"):
        read_tasks(task_folders(tmp_path), 32)
    assert "at least 4" in caplog.text
    with pytest.raises(PretrainingDataError, match="images/ and masks/"):
        task_folders(tmp_path / "nothing")
