"""fastai's `DataLoaders` from digits in any form."""
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import (
    IndexSplitter,
    RandomSplitter,
)
from fastai.torch_core import set_seed
from fastai.vision.data import ImageBlock
from fastcore.basics import listify
from PIL import Image

from digitfast.data.dataloaders import DigitDataLoaders, check_channels
from digitfast.data.devices import named_device
from digitfast.data.folders import (
    HELD_OUT,
    class_names,
    find_splits,
    has_split,
)
from digitfast.data.forms import is_split, open_digits, validation_name
from digitfast.data.images import FitSize, ImageInMemory, PILDigit, item_label
from digitfast.data.labelled import LabelledImages
from digitfast.data.pictures import fit_square
from digitfast.data.pixel_cache import load_pixels
from digitfast.data.resident import DigitDL, ResidentDL
from digitfast.errors import BadData, BadSetting

#: Bytes of memory that all images together may take; on a GPU at most a quarter of what is free.
RESIDENT_BYTES = 2 * 2**30


def digit_dls(
    source: Any,  # name, folder, file, (images, labels), data set, … (see `open_digits`)
    bs: int = 128,  # batch size, over all processes
    holdout: float = 0.0,  # part of the training images to validate on, 0 to below 1; 0: test split
    seed: int | None = None,  # chooses held-out images (None: 42); if given, seeds all that follows
    size: int = 28,  # side of the square images that the network gets, in pixels
    item_tfms=None,  # transforms of one image, after it has been brought to `size`
    batch_tfms=None,  # transforms of a batch
    val_bs: int | None = None,  # batch size of `dls.valid`; None: 4 * bs, or more on a GPU
    num_workers: int | None = None,  # processes that read images; None: one per core, up to 16
    device: str | torch.device | None = None,  # where batches go; None: the GPU if there is one
    resident: bool | None = None,  # keep images in memory, on the device; None: if they fit
) -> DigitDataLoaders:
    """Return fastai `DataLoaders` of digits in any form: all that `open_digits` takes.

    `dls.valid` is the test split; with `holdout` it is that part of the *training* images, and no
    image of the test split is read. Where there is no split, `holdout` is 0.1 unless it is given.
    Images are never mirrored.

    Image files are decoded once and kept in memory, one byte per pixel (55 MB for MNIST), and in a
    cache file; with `resident=False` or `item_tfms`, files are read again for every batch, as in
    fastai. Images from memory are not written to the disk.

    The result does not depend on the order in which the file system lists files, and the random
    generators keep their states. With a `seed` they are set to it at the end, as by fastai's
    `set_seed`, so the `Learner` made next gets the same weights and order of images every time.

    Shapes: batches of `[bs, 1, size, size]` floats, 0 = paper to 1 = ink, and `[bs]` class indices.
    Raises: `DataNotFound`, `BadImage`, `BadSetting`, and `BadData` for a missing split, an empty
    class, a file that is not an image, and arrays of other shapes or values.
    """
    _check_ranges(bs, holdout, size)
    device = named_device(device)
    check_channels(listify(batch_tfms))
    bs = int(bs)  # torch does not take numpy's integers
    seed = seed if seed is None else int(seed)
    digits = open_digits(source)
    holdout = _choose_holdout(digits, holdout)
    kwargs = {"bs": bs, "item_tfms": [FitSize(size), *listify(item_tfms)], "batch_tfms": batch_tfms,
              "val_bs": val_bs or _validation_batch(bs, size, device), "num_workers": num_workers,
              "device": device, "dl_type": DigitDL}
    with _keep_generators():
        # fastai's `seed=` would seed the generators of GPUs as well
        torch.default_generator.manual_seed(42 if seed is None else seed)
        dls = (_dls_of_files(digits, holdout, **kwargs) if isinstance(digits, Path)
               else _dls_of_images(digits, holdout, **kwargs))
    _check_images(dls, bs, holdout)
    stays = _stays_in_memory(dls, resident, item_tfms, size)
    loaders = _make_resident(dls, digits, size) if stays else dls.loaders
    if seed is not None:
        set_seed(seed)
    ours = DigitDataLoaders(*loaders, path=digits if isinstance(digits, Path) else ".",
                            device=dls.device)
    ours.holdout = holdout
    ours.validated_on = HELD_OUT if holdout else validation_name(digits)
    return ours


def _choose_holdout(digits: Path | LabelledImages, holdout: float, default: float = 0.1) -> float:
    "Return the part of the images to hold out: `default`, with a warning, where nothing else is."
    if is_split(digits) or holdout:
        return holdout
    warnings.warn(f"{digits} has no split; {default:.0%} of its images, chosen by the seed, "
                  "are held out to validate on", stacklevel=3)
    return default


def _dls_of_files(path: Path, holdout: float, **kwargs) -> DataLoaders:
    "Return loaders of the image files below `path`, as `ImageDataLoaders.from_folder` makes them."
    root, split, classes = _choose_split(path, holdout)
    return DigitDataLoaders.from_folder(root, **split, vocab=classes, img_cls=PILDigit, **kwargs)


def _dls_of_images(images: LabelledImages, holdout: float, **kwargs) -> DataLoaders:
    "Return loaders of images in memory."
    n = images.n_training if holdout else len(images)
    labels = [images.vocab[i] for i in images.labels[:n].tolist()]
    items = list(map(ImageInMemory, images.pixels[:n], labels, images.image_names()))
    splitter = (RandomSplitter(holdout) if holdout
                else IndexSplitter(range(images.n_training, n)))
    block = DataBlock((ImageBlock(PILDigit), CategoryBlock(images.vocab)), splitter=splitter,
                      get_y=item_label, item_tfms=kwargs.pop("item_tfms"),
                      batch_tfms=kwargs.pop("batch_tfms"))
    return DigitDataLoaders.from_dblock(block, items, **kwargs)


def _check_ranges(bs: int, holdout: float, size: int, max_size: int = 1024) -> None:
    "Raise `BadSetting` for a `bs`, a `holdout` or a `size` outside its range."
    if not (isinstance(bs, Integral) and bs >= 1):
        raise BadSetting(f"bs must be a whole number of at least 1, not {bs!r}")
    if not 0 <= holdout < 1:
        raise BadSetting("holdout must be at least 0 and below 1 (part of the training images), "
                         f"such as 0.1, not {holdout}")
    if not 1 <= size <= max_size:
        raise BadSetting(f"size must be 1 to {max_size} (side of the images in pixels), such as "
                         f"MNIST's 28, not {size}")


def _choose_split(path: Path, holdout: float) -> tuple[Path, dict, list[str]]:
    """Return the folder to read, fastai's arguments that split it, and the names of the classes.

    Raises: `BadData` for splits of different classes.
    """
    if not has_split(path):
        return path, {"valid_pct": holdout}, class_names(path)
    train, valid = find_splits(path, need_valid=not holdout)
    classes = class_names(path / train)
    if holdout:
        return path / train, {"valid_pct": holdout}, classes
    if strange := set(class_names(path / valid)) ^ set(classes):
        raise BadData(f"{path / train} and {path / valid} have different classes; only one has: "
                      f"{', '.join(sorted(strange))}")
    return path, {"train": train, "valid": valid}, classes


def _check_images(dls: DataLoaders, bs: int, holdout: float) -> None:
    "Raise `BadSetting` for too few images for a batch, for validation or for a class."
    if bs > (n := len(dls.train_ds)):
        raise BadSetting(f"bs={bs} is more than the {n} training images; "
                         f"try bs={max(1, n // 10)}")
    if not len(dls.valid_ds):
        raise BadSetting(f"holdout={holdout} of {n} training images leaves none to validate on; "
                         "use a larger part")
    if missing := set(dls.vocab) - set(map(item_label, dls.train_ds.items)):
        raise BadSetting(f"holdout={holdout} leaves no training image of "
                         f"{', '.join(sorted(missing))}; use a smaller part, or add images")


@contextmanager
def _keep_generators() -> Iterator[None]:
    "Restore the random generators of Python and torch afterwards: fastai's loaders draw from them."
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)


def _validation_batch(bs: int, size: int, device: torch.device) -> int:
    "Return the batch size of validation, which needs no memory for gradients."
    least = 2048 * 28**2 // size**2 if device.type == "cuda" else 0  # a smaller one idles a GPU
    return max(4 * bs, least)


def _resident_limit(device: torch.device) -> int:
    "Return how many bytes all images may take on `device`; on a GPU at most 1/4 of what is free."
    if device.type == "cuda":
        return min(RESIDENT_BYTES, torch.cuda.mem_get_info(device)[0] // 4)
    return RESIDENT_BYTES


def _stays_in_memory(dls: DataLoaders, resident: bool | None, item_tfms, size: int) -> bool:
    "Return whether images are kept in memory. Raises: `BadSetting` if they cannot be."
    if resident is None:
        n = len(dls.train_ds) + len(dls.valid_ds)
        return not item_tfms and n * size * size <= _resident_limit(dls.device)
    if resident and item_tfms:
        raise BadSetting("images kept in memory cannot have item_tfms; use batch_tfms, which run "
                         "on the device, or resident=False")
    return resident


@_keep_generators()
def _make_resident(
    dls: DataLoaders,
    digits: Path | LabelledImages,
    size: int,
) -> list[ResidentDL]:
    "Return the loaders of `dls` with all images in memory; random generators keep their states."
    splits = [list(dl.dataset.items) for dl in dls.loaders]
    every = [item for items in splits for item in items]
    if isinstance(digits, Path):
        pixels = load_pixels(every, digits, size)
    else:
        pixels = torch.from_numpy(_fitted([item.pixels for item in every], size))
    index = dls.vocab.o2i
    labels = [torch.tensor([index[item_label(item)] for item in items]) for items in splits]
    return [dl.new(cls=ResidentDL, pixels=part, labels=part_labels)
            for dl, part, part_labels in zip(
                dls.loaders, pixels.split([len(items) for items in splits]), labels, strict=True)]


def _fitted(images: list[np.ndarray], size: int) -> np.ndarray:
    "Return grey images as one array `[n, size, size]`."
    if images[0].shape == (size, size):
        return np.stack(images)
    return np.stack([np.asarray(fit_square(Image.fromarray(image), size)) for image in images])


