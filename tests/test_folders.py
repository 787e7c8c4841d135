"""Folders of digits as people have them."""
import shutil

import pytest

from digitfast.data.folders import (
    class_counts,
    class_images,
    class_names,
    find_splits,
    split_name,
)
from digitfast.errors import BadData, DataNotFound


def folder_of(path, *splits):
    "Empty splits with one class each."
    for split in splits:
        (path / split / "0").mkdir(parents=True)
    return path


@pytest.mark.parametrize(("train", "valid"), [
    ("training", "testing"), ("train", "valid"), ("train", "val"), ("train", "test")])
def test_splits_by_their_names(tmp_path, train, valid):
    assert find_splits(folder_of(tmp_path, train, valid)) == (train, valid)


def test_of_three_splits_the_test_images_are_not_validated_on(tmp_path):
    assert find_splits(folder_of(tmp_path, "train", "valid", "test")) == ("train", "valid")


def test_a_training_folder_alone_is_enough_to_hold_images_out(tmp_path):
    folder_of(tmp_path, "train")
    assert find_splits(tmp_path, need_valid=False)[0] == "train"
    words = "it holds train; there must be training/ and testing/ or train/ and valid/"
    with pytest.raises(BadData, match=words):
        find_splits(tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataNotFound, match="'.*nowhere' is not a folder"):
        find_splits(tmp_path / "nowhere")


@pytest.mark.parametrize(("split", "words"), [
    ("testing", "test images"), ("test", "test images"),
    ("valid", "validation images"), ("val", "validation images")])
def test_what_a_split_is_called(split, words):
    assert split_name(split) == words


def test_images_are_in_the_order_of_their_names(copy_of_digits):
    found = class_images(copy_of_digits / "training")
    assert list(found) == list("0123456789")
    assert all(files == sorted(files) and len(files) == 30 for files in found.values())


def test_what_an_operating_system_leaves_is_no_image(copy_of_digits):
    split = copy_of_digits / "testing"
    for place in (split, split / "3"):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._x.png"):
            (place / name).write_bytes(b"x")
    (split / ".ipynb_checkpoints").mkdir()
    assert class_counts(split) == dict.fromkeys("0123456789", 12)


def test_what_is_out_of_place_is_named(copy_of_digits):
    split = copy_of_digits / "testing"
    shutil.copy(split / "3/30.png", split / "lost.png")
    with pytest.raises(BadData, match="lost.png is not in a class folder"):
        class_images(split)
    (split / "lost.png").rename(split / "3/labels.txt")
    with pytest.raises(BadData, match="labels.txt is not an image; move it out"):
        class_images(split)


def test_an_empty_class_is_named(tmp_path):
    with pytest.raises(BadData, match="train/0 is empty; put pictures of the class into it"):
        class_names(folder_of(tmp_path, "train") / "train")


def test_a_folder_without_classes(tmp_path):
    with pytest.raises(BadData, match="holds no class folders"):
        class_names(tmp_path)
