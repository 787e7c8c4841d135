import numpy as np
import pytest
import torch

from digitfast.data.labelled import labelled_images
from digitfast.errors import BadData


@pytest.fixture
def images():
    "Twelve images of 28×28 bytes, light ink in the middle."
    pixels = np.zeros((12, 28, 28), np.uint8)
    pixels[:, 8:20, 8:20] = np.random.default_rng(0).integers(100, 256, (12, 12, 12))
    return pixels


LABELS = [3, 7, 10] * 4


@pytest.mark.parametrize("form", [
    lambda x: x, list, lambda x: x.reshape(12, 784), lambda x: x[:, None], lambda x: x[..., None],
    lambda x: x / 255, lambda x: (x / 255).astype(np.float32), lambda x: x.astype(float),
    lambda x: x.astype(np.int64), torch.from_numpy, lambda x: torch.from_numpy(x) / 255,
    lambda x: list(torch.from_numpy(x)), lambda x: (torch.from_numpy(x) / 255).bfloat16().double()])
def test_all_forms_of_images_are_the_same(images, form):
    found = labelled_images(form(images), LABELS)
    assert np.abs(found.pixels.astype(int) - images).max() <= 1
    assert found.pixels.dtype == np.uint8


def test_bytes_stay_as_they_are(images):
    assert np.array_equal(labelled_images(images / 255, LABELS).pixels, images)


@pytest.mark.parametrize("change", [
    lambda x: x.swapaxes(1, 2), lambda x: x[::2], lambda x: np.asfortranarray(x)])
def test_images_may_lie_in_memory_in_any_way(images, change):
    pixels = change(images)
    found = labelled_images(pixels, LABELS[:len(pixels)])
    assert found.pixels.flags.c_contiguous
    assert np.array_equal(found.pixels, pixels)


def test_booleans(images):
    found = labelled_images(images > 150, LABELS)
    assert np.array_equal(found.pixels, np.where(images > 150, 255, 0))


@pytest.mark.parametrize("axis", [1, 3])
def test_colour_is_read_as_pillow_reads_it(axis):
    from PIL import Image
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), np.uint8)
    pixels[:, 0] = pixels[:, -1] = pixels[:, :, 0] = pixels[:, :, -1] = 0
    with pytest.warns(UserWarning, match="the training images of the arrays are in colour"):
        found = labelled_images(np.moveaxis(pixels, 3, axis), [0, 1, 2, 3])
    grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in pixels])
    assert np.abs(found.pixels.astype(int) - grey).max() <= 1


@pytest.mark.parametrize("labels", [
    LABELS, np.array(LABELS), torch.tensor(LABELS), np.array(LABELS, float),
    np.array(LABELS)[:, None], [str(label) for label in LABELS]])
def test_numbers_are_classes_in_their_order(images, labels):
    found = labelled_images(images, labels)
    assert found.vocab == ["3", "7", "10"]
    assert [found.vocab[i] for i in found.labels] == list(map(str, LABELS))


def test_names_are_classes(images):
    assert labelled_images(images, ["b", "a"] * 6).vocab == ["a", "b"]


def test_given_names_without_an_image_are_left_out(images):
    found = labelled_images(images, [2, 1] * 6, classes=["N/A", "a", "b"])
    assert (found.vocab, found.labels.tolist()) == (["a", "b"], [1, 0] * 6)


def test_a_split(images):
    found = labelled_images(images[:9], LABELS[:9], images[9:], LABELS[9:])
    assert found.counts() == {"training": {"3": 3, "7": 3, "10": 3},
                              "valid": {"3": 1, "7": 1, "10": 1}}
    assert np.array_equal(found.validation().pixels, images[9:])
    assert found.image_names()[8:10] == ["training/8", "valid/0"]


def test_without_a_split_all_images_are_evaluated(images):
    assert len(labelled_images(images, LABELS).validation()) == 12


def test_dark_ink_is_told(images):
    with pytest.warns(UserWarning, match="the arrays: dark ink on light paper"):
        found = labelled_images(255 - images, LABELS)
    assert np.array_equal(found.pixels, 255 - images)


@pytest.mark.parametrize("change, problem", [
    (lambda x: x / 127.5 - 1, r"range from -1 to 1; .*floats 0..1. Undo a normalisation"),
    (lambda x: x.astype(int) * 257, "range from 0 to 65535"),
    (lambda x: np.where(x > 250, np.nan, x / 255), "range from nan to nan"),
    (lambda x: x * 0.7, "hold fractions up to"),
    (lambda x: x // 16, r"brightest pixel .* is 15 of 255; .*divide them by it"),
    (lambda x: x[0], r"have the shape \[28, 28\]; it must be \[n, h, w\]"),
    (lambda x: x[:, :20].reshape(12, -1), r"have the shape \[12, 560\]"),
    (lambda x: x[:0], r"have the shape \[0, 28, 28\]"),
    (lambda x: x.astype(str), "hold <U3; they must be bytes"),
    (lambda x: [x[0], x[1][:20]], "must be numbers, all of one shape")])
def test_images_that_are_none(images, change, problem):
    with pytest.raises(BadData, match=problem) as error:
        labelled_images(change(images), LABELS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("labels, problem", [
    (LABELS[1:], "12 training images have 11 labels"),
    (np.eye(12), r"have the shape \[12, 12\]; .*argmax"),
    ([0.5] * 12, "must be whole numbers or names")])
def test_labels_that_are_none(images, labels, problem):
    with pytest.raises(BadData, match=problem):
        labelled_images(images, labels)


def test_labels_beyond_the_classes(images):
    with pytest.raises(BadData, match="range from 3 to 10; there are 2 classes"):
        labelled_images(images, LABELS, classes=["a", "b"])


def test_splits_must_fit_each_other(images):
    with pytest.raises(BadData, match="no training image: 4"):
        labelled_images(images, LABELS, images, [4] * 12)
    with pytest.raises(BadData, match="differ in size: 28×28 and 14×14"):
        labelled_images(images, LABELS, images[:, ::2, ::2], LABELS)
