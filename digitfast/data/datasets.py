"""Data sets of torchvision and Hugging Face: by name, or as objects."""
import contextlib
import io
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from fastai.data.external import fastai_path
from filelock import FileLock

from digitfast.data.folders import class_images
from digitfast.data.labelled import LabelledImages, labelled_images
from digitfast.data.pixel_cache import load_pixels
from digitfast.data.sources import MAX_SILENCE, digits_path
from digitfast.errors import BadData, DataNotFound
from digitfast.registry import MNIST_PARTS, TORCHVISION_SETS

TEST_NAMES = ("test", "validation", "valid", "val")  # of a split that validates, in a mapping


def named_set(
    name: str,  # one of `MNIST_PARTS` or `TORCHVISION_SETS`
    fetch: bool = True,  # whether to download what is not on disk
) -> LabelledImages:
    """Return a data set by name.

    Parts of MNIST come from the bundled archive. torchvision fetches the others, checks them, and
    keeps them in fastai's data folder, below `torchvision`.

    Raises: `DataNotFound` if it is not on disk and cannot be fetched, or only a file names it;
    `BadData` if it is damaged.
    """
    if name in MNIST_PARTS:
        return _part_of_mnist(name)
    import torchvision
    kind, *splits = TORCHVISION_SETS[name]
    build = getattr(torchvision.datasets, kind)
    root = fastai_path("data") / "torchvision" / name
    try:
        return dataset_images(*(build(root, **split) for split in splits), name=name)
    except (OSError, RuntimeError):  # not on disk
        if not fetch:
            raise DataNotFound(
                f"a file names {name!r} as the source of its digits, and sources that only a file "
                f"names are not fetched. Fetch it first: digitfast data {name}") from None
    except Exception as e:  # of damaged files
        raise BadData(f"{root} is damaged ({e}); remove it, and {name} is fetched again") from e
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"), _short_silence(), _hide_bar_unless_watched():
            parts = [build(root, **split, download=True) for split in splits]
    except (OSError, RuntimeError, HTTPException, EOFError, ValueError) as e:
        raise DataNotFound(
            f"{name} is not on this machine and could not be fetched "
            f"({' '.join(str(e).split())}); put a copy of its files into {_folder(root, kind)}, as "
            f"torchvision.datasets.{kind} keeps them, or use mnist, {', '.join(MNIST_PARTS)}, "
            "which are bundled") from e
    return dataset_images(*parts, name=name)


def _folder(root: Path, kind: str) -> Path:
    "Return the folder in which torchvision keeps the files of a data set."
    return root if kind in ("USPS", "SVHN") else root / kind / "raw"


def _part_of_mnist(name: str) -> LabelledImages:
    "Return some of MNIST's images, the first ones of each class."
    classes, *most = MNIST_PARTS[name]
    path = digits_path()
    files, labels = [], []
    for split, count in zip(("training", "testing"), most, strict=True):
        images = class_images(path / split)
        of_split = [file for label in classes for file in images[label][:count]]
        files += of_split
        labels.append([file.parent.name for file in of_split])
    pixels = load_pixels(files, path).numpy()
    n = len(labels[0])
    return labelled_images(pixels[:n], labels[0], pixels[n:], labels[1], name=name,
                           validated_on="test images")


def dataset_images(
    training: Any,  # a data set of torchvision or Hugging Face, or any sequence of such pairs
    test: Any = None,  # as `training`; None: there is no split
    name: str = "the data set",  # what messages call it
) -> LabelledImages:
    "Return the images and labels of data sets. Raises: `BadData`."
    images, labels, classes = _arrays_of(training, name)
    if test is None:
        return labelled_images(images, labels, classes=classes, name=name)
    return labelled_images(images, labels, *_arrays_of(test, name)[:2], classes=classes, name=name,
                           validated_on="test images")


def mapping_images(
    splits: Mapping[str, Any],  # such as Hugging Face's `DatasetDict`
) -> LabelledImages:
    "Return the images of the split `train` and, to validate, `test`. Raises: `BadData`."
    if "train" not in splits:
        raise BadData(f"the data set has the splits {', '.join(map(str, splits))}; one must be "
                      "called train")
    test = next((splits[key] for key in TEST_NAMES if key in splits), None)
    return dataset_images(splits["train"], test)


def is_dataset(source: Any) -> bool:
    "Return whether an object is a data set, not an array, a tensor or a list."
    return (hasattr(source, "__getitem__") and hasattr(source, "__len__")
            and not hasattr(source, "dtype") and not isinstance(source, (str, bytes, list, tuple)))


def _arrays_of(dataset: Any, name: str) -> tuple[Any, Any, list[str] | None]:
    "Return images, labels, and the names of the classes where the data set has them."
    if hasattr(dataset, "column_names"):
        return _arrays_of_columns(dataset, name)
    images = getattr(dataset, "data", None)
    labels = getattr(dataset, "targets", getattr(dataset, "labels", None))
    kind = type(dataset).__name__
    if not (hasattr(images, "dtype") and labels is not None and len(images) == len(labels)):
        images, labels = _arrays_of_pairs(dataset, name)
    elif getattr(dataset, "transform", None) is not None:
        warnings.warn(f"{name}: the transforms of the data set are left out; use batch_tfms",
                      stacklevel=3)
    if kind == "EMNIST":
        images = images.transpose(1, 2)  # they are stored on their side
    if kind == "QMNIST" and getattr(labels, "ndim", 1) == 2:
        labels = labels[:, 0]  # the others say who wrote the digit
    classes = getattr(dataset, "classes", None)
    if classes and all(label.startswith(f"{i} - ") for i, label in enumerate(classes)):
        classes = [label.partition(" ")[0] for label in classes]  # MNIST's are "0 - zero", …
    return images, labels, classes


def _arrays_of_pairs(dataset: Any, name: str) -> tuple[np.ndarray, list]:
    "Return images and labels of a sequence of pairs."
    try:
        pairs = [dataset[i] for i in range(len(dataset))]
        images, labels = zip(*pairs, strict=True)
        return _stacked(images, name), [int(label) for label in labels]
    except (TypeError, ValueError, KeyError) as e:
        raise BadData(f"{name} must give pairs of an image and a class index ({e})") from e


def _arrays_of_columns(dataset: Any, name: str) -> tuple[np.ndarray, list, list[str] | None]:
    "Return images, labels and classes of a Hugging Face `Dataset`."
    kinds = {column: type(dataset.features[column]).__name__ for column in dataset.column_names}
    images = [column for column, kind in kinds.items() if kind == "Image"]
    labels = ([column for column, kind in kinds.items() if kind == "ClassLabel"]
              or [column for column in kinds if column in ("label", "labels", "digit")])
    if len(images) != 1 or not labels:
        raise BadData(f"{name} has the columns {', '.join(kinds)}; it must have one of images and "
                      "one of labels, called label")
    classes = getattr(dataset.features[labels[0]], "names", None)
    rows = [(row[images[0]], row[labels[0]]) for row in dataset]
    return _stacked([image for image, _ in rows], name), [label for _, label in rows], classes


def _stacked(images: Any, name: str) -> np.ndarray:
    "Return PIL images, arrays or tensors as one array."
    arrays = [np.asarray(image) for image in images]
    if len(shapes := {array.shape for array in arrays}) != 1:
        raise BadData(f"the images of {name} must be of one shape; these have "
                      f"{len(shapes)}: {', '.join(map(str, sorted(shapes)[:3]))}, …")
    return np.stack(arrays)


@contextlib.contextmanager
def _short_silence() -> Iterator[None]:
    "Give up on a server that is silent for `MAX_SILENCE` seconds."
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(MAX_SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _hide_bar_unless_watched() -> Iterator[None]:
    "Show torchvision's progress bars only at a terminal."
    if sys.stderr.isatty():
        yield
    else:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
