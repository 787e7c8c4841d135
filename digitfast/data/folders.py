"""Folders of digit images: splits, a folder per class in each split, images in each class."""
from pathlib import Path

from digitfast.data.pictures import CLUTTER
from digitfast.errors import BadData, DataNotFound

#: Names of the training folder and the validation folder, in the order in which they are tried.
SPLITS = (("training", "testing"), ("train", "valid"), ("train", "val"), ("train", "test"))
TEST_SPLITS = ("testing", "test")  # folders whose images are only reported on
HELD_OUT = "held-out training images"  # name of the training images that only validate


def find_splits(
    path: Path,  # folder of digits
    need_valid: bool = True,  # whether a missing validation folder is an error
) -> tuple[str, str]:
    """Return the names of the training folder and the validation folder below `path`.

    Raises: `DataNotFound`, `BadData`.
    """
    if not path.is_dir():
        raise DataNotFound(f"{str(path)!r} is not a folder; digits_path() returns MNIST's")
    for train, valid in SPLITS:
        if (path / train).is_dir() and ((path / valid).is_dir() or not need_valid):
            return train, valid
    there = [folder.name for folder in visible(path) if folder.is_dir()]
    allowed = " or ".join(f"{train}/ and {valid}/" for train, valid in SPLITS)
    raise BadData(f"{path} has no training and validation split: "
                  f"it holds {', '.join(there) or 'no folder'}; "
                  f"there must be {allowed} (holdout=0.1 needs only a training folder)")


def folder_splits(
    path: Path,  # folder of digits
) -> list[str]:
    "Return the names of all splits: training, validation, and test; [] where there is none."
    if not has_split(path):
        return []
    test_splits = [split for split in TEST_SPLITS if (path / split).is_dir()]
    return list(dict.fromkeys([*find_splits(path), *test_splits]))


def has_split(
    path: Path,  # folder of digits
) -> bool:
    "Return whether a folder holds splits, not the class folders themselves."
    return any((path / name).is_dir() for pair in SPLITS for name in pair)


def split_name(
    split: str,  # name of a folder, such as "testing" or "valid"
) -> str:
    "Return what a split's images are called: test images only report, validation images choose."
    return "test images" if split in TEST_SPLITS else "validation images"


def class_images(
    split: Path,  # for example `mnist_png/training`
) -> dict[str, list[Path]]:  # the images of each class; both are sorted by name
    "Return the image files of each class of a split. Raises: `BadData` for a misplaced file."
    from fastai.data.transforms import image_extensions  # names of splits need no fastai
    there = visible(split)
    folders = [folder for folder in there if folder.is_dir()]
    if stray := [file for file in there if file.suffix.lower() in image_extensions]:
        raise BadData(f"{stray[0]} is not in a class folder; move it into the folder of its class")
    if not folders:
        raise BadData(f"{split} holds no class folders; there must be one for each digit: "
                      f"{split / '0'}, {split / '1'}, …, in training/ and testing/ or without them")
    images = {folder.name: visible(folder) for folder in folders}
    for file in (file for files in images.values() for file in files):
        if file.suffix.lower() not in image_extensions:
            raise BadData(f"{file} is not an image; move it out of the class folder")
    return images


def class_names(
    split: Path,  # for example `mnist_png/training`
) -> list[str]:
    "Return the names of a split's class folders. Raises: `BadData`, also for an empty one."
    images = class_images(split)
    for name, files in images.items():
        if not files:
            raise BadData(f"{split / name} is empty; put pictures of the class into it, "
                          "or remove the folder")
    return list(images)


def class_counts(
    split: Path,  # for example `mnist_png/training`
) -> dict[str, int]:
    "Return the number of images of each class of a split. Raises: `BadData`, as `class_images`."
    return {name: len(files) for name, files in class_images(split).items()}


def visible(
    folder: Path,
) -> list[Path]:
    "Return what a person sees in a folder, sorted by name."
    visible = [file for file in folder.iterdir()
               if not file.name.startswith(".") and file.name not in CLUTTER]
    return sorted(visible, key=lambda file: file.name)
