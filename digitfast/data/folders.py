"""Folders of digit images as people have them: splits, in them a folder for each class, in these the images."""
from pathlib import Path

from fastai.data.transforms import image_extensions

from digitfast.data.pictures import CLUTTER
from digitfast.data.sources import digits_path
from digitfast.errors import BadData, DataNotFound

#: Names of the folders to train on and to validate on, in the order in which they are looked for.
SPLITS = (("training", "testing"), ("train", "valid"), ("train", "val"), ("train", "test"))
HELD_OUT = "held-out training images"  # what a part of the training images that only validates is called
TEST_SPLITS = ("testing", "test")  # names of the folder whose images only report


def find_splits(
    path: Path,  # folder of digits
    need_valid: bool = True,  # whether a training folder alone is an error
) -> tuple[str, str]:
    "The names of the training folder and the validation folder below `path`. Raises: `DataNotFound`, `BadData`."
    if not path.is_dir():
        raise DataNotFound(f"{str(path)!r} is no folder; digits_path() gives the one of MNIST")
    for train, valid in SPLITS:
        if (path / train).is_dir() and ((path / valid).is_dir() or not need_valid):
            return train, valid
    there = [folder.name for folder in _visible(path) if folder.is_dir()]
    allowed = " or ".join(f"{train}/ and {valid}/" for train, valid in SPLITS)
    raise BadData(f"{path} has no training and validation split: it holds {', '.join(there) or 'no folder'}; "
                  f"there must be {allowed} (holdout=0.1 needs a training folder only)")


def split_name(
    split: str,  # name of a folder, such as "testing" or "valid"
) -> str:
    "What the images of a split are called: test images only report, validation images choose as well."
    return "test images" if split in TEST_SPLITS else "validation images"


def evaluation_folder(
    source: str,  # what `digits_path` takes, or a folder of class folders
    fetch: bool = True,  # as for `digits_path`
) -> Path:
    "The folder of test images of `source`; without one, its validation images; without splits, itself."
    path = digits_path(source, fetch)
    for split in TEST_SPLITS:
        if (path / split).is_dir():
            return path / split
    try:
        return path / find_splits(path)[1]
    except BadData:
        if any((path / name).is_dir() for pair in SPLITS for name in pair):
            raise
        return path


def class_images(
    split: Path,  # for example `mnist_png/training`
) -> dict[str, list[Path]]:  # the images of each class; classes and images are in the order of their names
    "The image files in the class folders of a split. Raises: `BadData`, which names a file that is out of place."
    there = _visible(split)
    folders = [folder for folder in there if folder.is_dir()]
    if stray := [file for file in there if file.suffix.lower() in image_extensions]:
        raise BadData(f"{stray[0]} is in no class folder; move it into the one of its class")
    if not folders:
        raise BadData(f"{split} holds no class folders; there must be one for each digit: {split / '0'}, "
                      f"{split / '1'}, …")
    images = {folder.name: _visible(folder) for folder in folders}
    for file in (file for files in images.values() for file in files):
        if file.suffix.lower() not in image_extensions:
            raise BadData(f"{file} is no image; move it out of the class folder")
    return images


def class_names(
    split: Path,  # for example `mnist_png/training`
) -> list[str]:
    "The names of the class folders of a split, each of which holds images. Raises: `BadData`."
    images = class_images(split)
    for name, files in images.items():
        if not files:
            raise BadData(f"{split / name} is empty; put pictures of the class into it, or remove the folder")
    return list(images)


def class_counts(
    split: Path,  # for example `mnist_png/training`
) -> dict[str, int]:
    "The number of images in each class folder of a split. Raises: `BadData`, as `class_images`."
    return {name: len(files) for name, files in class_images(split).items()}


def _visible(folder: Path) -> list[Path]:
    "What a person sees in a folder, in the order of the names."
    return sorted((f for f in folder.iterdir() if not f.name.startswith(".") and f.name not in CLUTTER),
                  key=lambda f: f.name)
