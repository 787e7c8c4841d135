"""From a folder of digits to fastai's `DataLoaders`."""
from pathlib import Path

import torch
from fastai.data.transforms import get_image_files, image_extensions
from fastai.vision.data import ImageDataLoaders
from fastcore.basics import listify
from PIL import Image

from digitfast.errors import BadData, BadSetting, DataNotFound
from digitfast.images import FitSize, PILDigit

#: Names of the two splits' folders, training first, in the order in which they are looked for.
SPLITS = (("training", "testing"), ("train", "valid"), ("train", "test"))
_CLUTTER = {"Thumbs.db", "desktop.ini"}  # what operating systems leave in folders of pictures


class DigitDataLoaders(ImageDataLoaders):
    "fastai's `ImageDataLoaders`, with a `test_dl` (and so a `Learner.predict`) that takes any form of picture."

    def test_dl(
        self,
        test_items,  # a picture or a list of them: paths, PIL images, arrays; or a folder of pictures
        rm_type_tfms=None,  # as in fastai
        with_labels: bool = False,  # whether a file's folder is its label
        **kwargs,  # of the `DataLoader`: bs, num_workers
    ):
        "A `DataLoader` of unseen pictures, in the order given; a folder's files are taken in the order of their names."
        if isinstance(test_items, (str, Path)) and Path(test_items).is_dir():
            test_items = sorted(get_image_files(test_items))
        elif isinstance(test_items, (str, Path, bytes, Image.Image)) or getattr(test_items, "ndim", 3) == 2:
            test_items = [test_items]
        items = [Path(o) if isinstance(o, str) else o if isinstance(o, (Path, PILDigit)) else PILDigit.create(o)
                 for o in test_items]
        return super().test_dl(items, rm_type_tfms=rm_type_tfms, with_labels=with_labels, **kwargs)


def digit_dls(
    path: str | Path,  # folder with a training and a test split: training/ and testing/, or train/ and valid/
    bs: int = 64,  # images a batch
    holdout: float = 0.0,  # part of the training images to validate on instead of the test split, 0 to below 1
    seed: int = 42,  # of the choice of the held-out images
    size: int = 28,  # side of the square images a network sees, in pixels
    item_tfms=None,  # transforms of one image, after it has got its size
    batch_tfms=None,  # transforms of a batch
    val_bs: int | None = None,  # images a batch of `dls.valid`; None: bs
    num_workers: int | None = None,  # processes that read images; None: one a core, 16 at most
    device: str | torch.device | None = None,  # where batches go; None: the GPU where there is one
) -> DigitDataLoaders:
    """fastai `DataLoaders` of the digits below `path`, one folder a class.

    The test split is `dls.valid`, unless `holdout` is given: then `dls.valid` is that part of the *training* images,
    and no image of the test split is read. Images are never mirrored.

    Shapes: batches of `[bs, 1, size, size]` floats, 0 = paper to 1 = ink, and `[bs]` class indices.
    Raises: `DataNotFound`, `BadData` (a missing split, an empty class, a file that is no image), `BadImage`.
    """
    path = Path(path).expanduser()
    if not 0 <= holdout < 1:
        raise BadSetting(f"holdout={holdout} is no part of the training images; allowed are 0 to below 1, such as 0.1")
    train, valid = find_splits(path, need_valid=not holdout)
    classes = _classes(path / train)
    split = {"valid_pct": holdout, "seed": seed} if holdout else {"train": train, "valid": valid}
    if not holdout and (strange := set(_classes(path / valid)) - set(classes)):
        raise BadData(f"{path / valid} has classes that {path / train} has not: {', '.join(sorted(strange))}")
    if not bs >= 1:
        raise BadSetting(f"bs={bs}: at least 1 image a batch is wanted")
    with torch.random.fork_rng(devices=[]):  # fastai's split would seed the global generator
        dls = ImageDataLoaders.from_folder(
            path / train if holdout else path, **split, vocab=classes, img_cls=PILDigit, bs=bs,
            item_tfms=[FitSize(size), *listify(item_tfms)], batch_tfms=batch_tfms, val_bs=val_bs,
            num_workers=num_workers, device=device)
    if bs > (n := len(dls.train_ds)):
        raise BadSetting(f"bs={bs} is more than the {n} training images of {path}; try bs={max(1, n // 10)}")
    return DigitDataLoaders(*dls.loaders, path=path, device=dls.device)


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
    there = sorted(d.name for d in path.iterdir() if d.is_dir() and not d.name.startswith("."))
    allowed = " or ".join(f"{train}/ and {valid}/" for train, valid in SPLITS)
    raise BadData(f"{path} has no training and test split: it holds {', '.join(there) or 'no folder'}, and {allowed} "
                  "is wanted (holdout=0.1 needs a training folder only)")


def _classes(split: Path) -> list[str]:
    "The names of the class folders of one split, once each has been seen to hold images and nothing else."
    folders = sorted(d for d in split.iterdir() if d.is_dir() and not d.name.startswith("."))
    if not folders:
        raise BadData(f"{split} holds no class folders; one folder a digit is wanted: {split / '0'}, {split / '1'}, …")
    for folder in folders:
        files = [f for f in folder.iterdir() if not f.name.startswith(".") and f.name not in _CLUTTER]
        if not files:
            raise BadData(f"{folder} is empty; put pictures of the class into it, or remove the folder")
        for file in files:
            if file.suffix.lower() not in image_extensions:
                raise BadData(f"{file} is no image; move it out of the class folder")
    return [folder.name for folder in folders]
