"""Labelled images in memory: arrays, tensors and lists, checked and brought to one form."""
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

import numpy as np

from digitfast.errors import BadData

DIMMEST = 64  # least value, of 255, that the brightest pixel of all images must have


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledImages:
    "Grey images in memory with their classes; the first ones train, the others validate."
    pixels: np.ndarray  # uint8 `[n, h, w]`
    labels: np.ndarray  # int64 `[n]`, indices of `vocab`
    vocab: list[str]  # the classes
    n_training: int  # 1 to n; n: they have no split
    name: str  # what messages call them
    validated_on: str = "validation images"  # what those that validate are called

    def __str__(self) -> str:
        return self.name

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def validates(self) -> str:
        "The name of the split that validates, as a folder would be called."
        return "testing" if self.validated_on == "test images" else "valid"

    def image_names(self) -> list[str]:
        "Return the names of the images, such as `training/17`."
        n = self.n_training
        return [f"training/{i}" if i < n else f"{self.validates}/{i - n}" for i in range(len(self))]

    def training(self) -> "LabelledImages":
        "Return the images that train."
        n = self.n_training
        return replace(self, pixels=self.pixels[:n], labels=self.labels[:n])

    def validation(self) -> "LabelledImages":
        "Return the images that validate; all, where there is no split."
        first = self.n_training % len(self)
        return replace(self, pixels=self.pixels[first:], labels=self.labels[first:], n_training=0)

    def counts(self) -> dict[str, dict[str, int]]:
        "Return the number of images by split and class."
        parts = {"training": self.labels[:self.n_training],
                 self.validates: self.labels[self.n_training:]}
        return {split: dict(zip(self.vocab, np.bincount(part, minlength=len(self.vocab)).tolist(),
                                strict=True))
                for split, part in parts.items() if len(part)}


def labelled_images(
    images: Any,  # `[n, h, w]`, `[n, h * w]`, `[n, c, h, w]` or `[n, h, w, c]`
    labels: Any,  # `[n]`: whole numbers, or names
    valid_images: Any = None,  # as `images`; None: there is no split
    valid_labels: Any = None,
    *,
    classes: Sequence[str] | None = None,  # names of labels 0, 1, …; None: the labels themselves
    name: str = "the arrays",  # what messages call them
    validated_on: str = "validation images",
) -> LabelledImages:
    """Return arrays, tensors or lists as `LabelledImages`.

    Shapes: rows of `h * w` pixels must be of square images; c is 1 or 3, and colour becomes grey.
    Units: bytes 0..255, floats 0..1, or booleans; whole numbers of other types, and floats that are
    all whole, are taken for bytes.
    Raises: `BadData` for other shapes and values, and where images and labels differ in number.
    """
    parts = [(images, labels)]
    if valid_images is not None:
        parts.append((valid_images, valid_labels))
    pixels, names = [], []
    for part, (of_part, label_of) in zip(("training", "validation"), parts, strict=False):
        grey = _grey_bytes(of_part, f"the {part} images of {name}")
        names.append(_label_names(label_of, f"the {part} labels of {name}", classes))
        if len(grey) != len(names[-1]):
            raise BadData(f"{name}: {len(grey):,} {part} images have {len(names[-1]):,} labels; "
                          "there must be one for each")
        pixels.append(grey)
    if pixels[0].shape[1:] != pixels[-1].shape[1:]:
        sides = " and ".join("×".join(map(str, grey.shape[1:])) for grey in pixels)
        raise BadData(f"{name}: training and validation images differ in size: {sides} pixels")
    vocab = _in_order(set(names[0]), classes)
    if strange := sorted(set(names[-1]) - set(vocab)):
        raise BadData(f"{name}: some classes have no training image: {', '.join(strange)}")
    index = {label: i for i, label in enumerate(vocab)}
    every = LabelledImages(
        pixels=np.concatenate(pixels) if len(pixels) > 1 else pixels[0],
        labels=np.array([index[label] for of_part in names for label in of_part], np.int64),
        vocab=vocab, n_training=len(pixels[0]), name=name, validated_on=validated_on)
    _say_polarity(every)
    return every


def _grey_bytes(images: Any, what: str) -> np.ndarray:
    "Return images as uint8 `[n, h, w]`."
    images = _numbers(images, what)
    if images.ndim == 2 and (side := isqrt(images.shape[1]))**2 == images.shape[1]:
        images = images.reshape(len(images), side, side)
    if images.ndim == 4 and 3 in (images.shape[1], images.shape[3]):
        if images.shape[3] != 3:
            images = np.moveaxis(images, 1, 3)
        warnings.warn(f"{what} are in colour, and are read as grey", stacklevel=3)
        images = _bytes(images, what) @ np.float32([0.299, 0.587, 0.114])  # as Pillow's mode "L"
        return images.round().astype(np.uint8)
    if images.ndim == 4 and 1 in (images.shape[1], images.shape[3]):
        images = images[:, 0] if images.shape[1] == 1 else images[..., 0]
    if images.ndim != 3 or images.size == 0:
        raise BadData(f"{what} have the shape {list(images.shape)}; it must be [n, h, w], [n, 784] "
                      "or, with 1 or 3 channels, [n, c, h, w] or [n, h, w, c]")
    return _bytes(images, what)


def _numbers(values: Any, what: str) -> np.ndarray:
    "Return an array, a tensor or a list as an array of numbers or text."
    try:
        if hasattr(values, "detach"):
            values = values.detach().cpu()
            values = values.float() if values.is_floating_point() else values
        elif isinstance(values, (list, tuple)):
            values = [v.detach().cpu() if hasattr(v, "detach") else v for v in values]
        array = np.asarray(values)
    except (RuntimeError, TypeError, ValueError) as e:
        raise BadData(f"{what} are no array: they must be numbers, all of one shape") from e
    return array


def _bytes(images: np.ndarray, what: str) -> np.ndarray:
    "Return the values 0..255 as uint8."
    allowed = "they must be bytes 0..255, or floats 0..1"
    if images.dtype.kind not in "bfiu":
        raise BadData(f"{what} hold {images.dtype}; {allowed}")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 255):  # a NaN compares false
        raise BadData(f"the values of {what} range from {low:.6g} to {high:.6g}; {allowed}. "
                      "Undo a normalisation first")
    if images.dtype.kind == "b" or (images.dtype.kind == "f" and high <= 1):
        images = _scaled_to_bytes(images)
    elif images.dtype.kind == "f" and (images != np.rint(images)).any():
        raise BadData(f"{what} hold fractions up to {high:.4g}; {allowed}")
    images = np.ascontiguousarray(images, np.uint8)
    if (brightest := int(images.max())) < DIMMEST:
        raise BadData(f"the brightest pixel of {what} is {brightest} of 255; {allowed}. If "
                      f"{high:.4g} is the brightest that there can be, divide them by it")
    return images


def _scaled_to_bytes(images: np.ndarray, step: int = 500) -> np.ndarray:
    "Return values 0..1 as 0..255, some images at a time, which stay in the processor's cache."
    scaled = np.empty(images.shape, np.uint8)
    for i in range(0, len(images), step):
        scaled[i:i + step] = images[i:i + step] * np.float32(255) + np.float32(0.5)
    return scaled


def _label_names(labels: Any, what: str, classes: Sequence[str] | None) -> list[str]:
    "Return the names of the labels."
    array = _numbers(labels, what)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise BadData(f"{what} have the shape {list(array.shape)}; it must be [n], one class per "
                      "image (of one-hot rows take argmax(1))")
    if array.dtype.kind == "f" and (array == np.rint(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "biuSUO":
        raise BadData(f"{what} hold {array.dtype}; they must be whole numbers or names")
    if classes is None:
        return [label.decode() if isinstance(label, bytes) else str(label)
                for label in array.tolist()]
    if array.dtype.kind in "SUO":
        if strange := sorted(set(map(str, array)) - set(classes)):
            raise BadData(f"{what} hold {strange[0]!r}, which is none of: {', '.join(classes)}")
        return list(map(str, array))
    if array.size and not (array.min() >= 0 and array.max() < len(classes)):
        raise BadData(f"{what} range from {array.min()} to {array.max()}; "
                      f"there are {len(classes)} classes")
    return [classes[i] for i in array.tolist()]


def _in_order(names: set[str], classes: Sequence[str] | None) -> list[str]:
    "Return the names of the classes in their own order, of numbers by value, or by name."
    if classes is not None:
        return [name for name in classes if name in names]
    if all(name.isdecimal() for name in names):
        return sorted(names, key=int)
    return sorted(names)


def _say_polarity(images: LabelledImages, most: int = 1000) -> None:
    "Warn if ink is dark on light paper, unlike MNIST's: the rim of most images is light."
    some = images.pixels[::max(1, len(images) // most)]
    rim = np.concatenate([some[:, 0], some[:, -1], some[:, :, 0], some[:, :, -1]], axis=1)
    if np.median(rim) > 127:
        warnings.warn(f"{images.name}: dark ink on light paper, the opposite of MNIST's; they are "
                      "taken as they are, and so are the pictures that the network will answer for",
                      stacklevel=4)
