"""Digits in any form: a folder of image files stays one, all else becomes images in memory."""
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from digitfast.data.array_files import (
    TABLES,
    idx_sets,
    images_of_idx,
    images_of_npz,
    is_idx,
    table_of_images,
)
from digitfast.data.datasets import (
    dataset_images,
    is_dataset,
    mapping_images,
    named_set,
)
from digitfast.data.folders import (
    TEST_SPLITS,
    class_images,
    find_splits,
    has_split,
    split_name,
    visible,
)
from digitfast.data.labelled import LabelledImages, labelled_images
from digitfast.data.sources import digits_path
from digitfast.errors import BadData
from digitfast.files import expanded
from digitfast.registry import DATA_SETS


def open_digits(
    source: Any,  # one of the forms below
    fetch: bool = True,  # fetch what is not on disk; False for a source that only a file names
) -> Path | LabelledImages:
    """Return digits in any form, as a folder of image files or as images in memory.

    `source` is one of:

    - what `digits_path` takes: "mnist", a fastai name, a URL, an archive, or a folder with two
      splits, training/ and testing/ or train/ and val/, that have one folder per class;
    - a folder of class folders without splits;
    - the name of a data set: "mnist-sample", "mnist-tiny", "fashion", "kmnist", "qmnist",
      "emnist-digits", "emnist-letters", "emnist-balanced", "usps" or "svhn";
    - Kaggle's train.csv, IDX files, or Keras' .npz, or a folder that holds them;
    - `(images, labels)` or `(images, labels, valid_images, valid_labels)`: arrays, tensors or lists
      of bytes 0..255 or floats 0..1, `[n, h, w]`, `[n, h * w]`, `[n, c, h, w]` or `[n, h, w, c]`;
    - a data set of torchvision or Hugging Face, or two of them.

    Raises: `DataNotFound`, `BadData`.
    """
    if isinstance(source, LabelledImages):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _in_files(source, fetch)
    if isinstance(source, Mapping):
        return mapping_images(source)
    if is_dataset(source):
        return dataset_images(source)
    if isinstance(source, (tuple, list)) and len(source) == 2 and all(map(is_dataset, source)):
        return dataset_images(*source)
    if isinstance(source, (tuple, list)) and len(source) in (2, 4):
        return labelled_images(*source)
    raise BadData(f"a {type(source).__name__} is no source of digits; allowed are a name, a "
                  "folder, a file, (images, labels), (images, labels, valid_images, valid_labels), "
                  "and data sets of torchvision and Hugging Face")


def _in_files(source: str | os.PathLike, fetch: bool) -> Path | LabelledImages:
    "Return the digits of a name, a file or a folder."
    if source in DATA_SETS and source != "mnist":
        return named_set(str(source), fetch)
    file = expanded(source)
    if file.suffix.lower() in TABLES and file.is_file():
        return table_of_images(file)
    if file.suffix.lower() == ".npz" and file.is_file():
        return images_of_npz(file)
    if is_idx(file) and file.is_file():
        return images_of_idx(file.parent, file)
    return _in_folder(digits_path(source, fetch))


def _in_folder(folder: Path) -> Path | LabelledImages:
    "Return the images of IDX files, of a table or of an .npz in a folder, or the folder itself."
    if has_split(folder):
        return folder
    if idx_sets(folder):
        return images_of_idx(folder)
    there = visible(folder)
    if len(there) > 1 and any(file.is_dir() for file in there):
        return folder
    tables = [file for file in there if file.name.lower() == "train.csv"]
    archives = [file for file in there if file.suffix.lower() == ".npz"]
    if tables:
        return table_of_images(tables[0])
    if len(archives) == 1:
        return images_of_npz(archives[0])
    if len(there) == 1 and there[0].is_dir() and any(f.is_dir() for f in visible(there[0])):
        return _in_folder(there[0])
    return folder


def is_split(
    digits: Path | LabelledImages,
) -> bool:
    "Return whether some of the images are set apart to validate."
    if isinstance(digits, LabelledImages):
        return digits.n_training < len(digits)
    return has_split(digits)


def validation_name(
    digits: Path | LabelledImages,  # with a split
) -> str:
    "Return what the images that validate are called."
    if isinstance(digits, LabelledImages):
        return digits.validated_on
    return split_name(find_splits(digits)[1])


def evaluation_digits(
    source: Any,  # as for `digit_dls`
    fetch: bool = True,  # as in `open_digits`
) -> Path | LabelledImages:
    """Return the images to evaluate on, as a folder of class folders or in memory.

    They are the test split of `source`, else its validation split, and all where there is none.
    """
    digits = open_digits(source, fetch)
    if isinstance(digits, LabelledImages):
        return digits.validation()
    if not is_split(digits):
        return digits
    for split in TEST_SPLITS:
        if (digits / split).is_dir():
            return digits / split
    return digits / find_splits(digits)[1]


def in_parts(
    digits: Path | LabelledImages,
) -> list[Path | LabelledImages]:
    "Return the training images and, where there is a split, those that validate."
    if isinstance(digits, LabelledImages):
        training = digits.training()
        return [training, digits.validation()] if is_split(digits) else [training]
    return [digits / split for split in find_splits(digits)] if is_split(digits) else [digits]


def labelled_pictures(
    digits: Path | LabelledImages,  # a folder of class folders, or images in memory
) -> tuple[list[Path] | list[np.ndarray], list[str]]:
    "Return all pictures, and the class of each. Raises: `BadData` if there are none."
    if isinstance(digits, LabelledImages):
        return list(digits.pixels), [digits.vocab[i] for i in digits.labels.tolist()]
    files = [file for of_class in class_images(digits).values() for file in of_class]
    if not files:
        raise BadData(f"{digits} holds no images in its class folders")
    return files, [file.parent.name for file in files]
