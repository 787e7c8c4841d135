"""fastai's `DataLoaders` from digits in any form."""
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.core import DataLoaders, TfmdLists
from fastai.data.transforms import (
    IndexSplitter,
    Normalize,
    RandomSplitter,
    get_image_files,
    parent_label,
)
from fastai.torch_core import set_seed
from fastai.vision.data import ImageBlock, ImageDataLoaders
from fastcore.basics import listify, noop
from PIL import Image

from digitfast.data.devices import named_device
from digitfast.data.folders import (
    HELD_OUT,
    class_counts,
    class_names,
    find_splits,
    folder_splits,
    has_split,
)
from digitfast.data.forms import is_split, open_digits, validation_name
from digitfast.data.images import FitSize, ImageInMemory, PILDigit, item_label, item_name
from digitfast.data.labelled import LabelledImages
from digitfast.data.pictures import fit_square
from digitfast.data.pixel_cache import load_pixels, pixels_checksum
from digitfast.data.resident import DigitDL, ResidentDL
from digitfast.errors import BadData, BadSetting

#: Bytes of memory that all images together may take; on a GPU at most a quarter of what is free.
RESIDENT_BYTES = 2 * 2**30


class DigitDataLoaders(ImageDataLoaders):
    "fastai's `ImageDataLoaders`, whose `test_dl` and `Learner.predict` take pictures in any form."
    holdout = 0.0  # part of the training images that validates
    validated_on = ""  # what the images that validate are called

    @classmethod
    def from_dblock(cls, dblock, source, **kwargs):
        "Do as fastai does, with files sorted by name, however the file system lists them."
        if dblock.get_items:
            dblock.get_items = partial(_in_order, dblock.get_items)
        dblock.getters = [item_label if getter is parent_label else getter
                          for getter in dblock.getters]  # also knows images in memory
        dls = super().from_dblock(dblock, source, **kwargs)
        for items in _item_lists(dls):
            items.splits = [range(len(items))]  # fastai keeps all splits' indices in each split
        return dls

    def add_tfms(self, tfms, event, dl_idx=None):
        "Do as fastai does. Raises: `BadSetting` for a `Normalize` with colour statistics."
        if event == "after_batch":
            _check_channels([*self[0].after_batch.fs, *listify(tfms)])
        return super().add_tfms(tfms, event, dl_idx)

    def test_dl(
        self,
        test_items,  # one picture, a list of them (paths, PIL images, arrays), or a folder
        rm_type_tfms=None,  # as in fastai
        with_labels: bool = False,  # whether a file's folder is its label
        **kwargs,  # of the `DataLoader`: bs, num_workers
    ):
        "Return a `DataLoader` of unseen pictures, in the given order or by name in a folder."
        if isinstance(test_items, (str, Path)) and Path(test_items).is_dir():
            test_items = sorted(get_image_files(test_items))
        elif (isinstance(test_items, (str, Path, bytes, Image.Image))
              or _is_one_picture(test_items)):
            test_items = [test_items]
        items = [_as_item(picture) for picture in test_items]
        return super().test_dl(items, rm_type_tfms=rm_type_tfms, with_labels=with_labels, **kwargs)

    def new_empty(self):
        "Do as fastai does, but forget the folder and the system of the digits, for an export."
        empty = super().new_empty()
        empty.path = Path()
        for items in _item_lists(empty):
            items.types = [Path if isinstance(kind, type) and issubclass(kind, Path) else kind
                           for kind in items.types]
            for tfm in items.tfms.fs:
                for name in ("encodes", "decodes"):  # these cache the types that they have met
                    getattr(getattr(tfm, name, None), "clear_cache", noop)()
        return empty

    def __getstate__(self):
        return {**vars(self), "path": str(self.path)}  # a pickled Path opens on one system only

    def __setstate__(self, state: dict):
        vars(self).update(state, path=Path(state["path"]))

    def checksum(self) -> str | None:
        "Return the SHA-256 of the names and pixels of both splits; None if they are not in memory."
        if not all(isinstance(dl, ResidentDL) for dl in self.loaders):
            return None
        names = [[item_name(item, self.path) for item in dl.dataset.items] for dl in self.loaders]
        pixels = [dl.pixels for dl in self.loaders]
        return pixels_checksum(*zip(names, pixels, strict=True))


def digit_dls(
    source: Any,  # name, folder, file, (images, labels), data set: see below
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
    """Return fastai `DataLoaders` of digits in any form.

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
    _check_channels(listify(batch_tfms))
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


def _item_lists(dls: DataLoaders) -> list[TfmdLists]:
    "Return the lists of images and of labels of both splits."
    return [items for dl in dls.loaders for items in dl.dataset.tls]


def _in_order(get_items: Callable[[Path], list[Path]], source: Path) -> list[Path]:
    "Return the files that `get_items` lists, sorted by name."
    return sorted(get_items(source), key=Path.as_posix)


@contextmanager
def _keep_generators() -> Iterator[None]:
    "Restore the random generators of Python and torch afterwards: fastai's loaders draw from them."
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)


def _check_channels(tfms: list) -> None:
    "Raise `BadSetting` for colour statistics, which would silently make three channels of one."
    for tfm in tfms:
        if not type(tfm).__module__.startswith(("fastai.", "digitfast.")):
            return  # a user's transform may make three channels
        if isinstance(tfm, Normalize) and tfm.mean is not None and tfm.mean.shape[1] != 1:
            raise BadSetting(
                f"Normalize has statistics for {tfm.mean.shape[1]} channels, but these images are "
                "grey; use vision_learner(dls, arch, n_in=1) for a pretrained network, or "
                "Normalize.from_stats([0.1307], [0.3081]) for MNIST's statistics")


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


def _as_item(picture) -> Path | PILDigit:
    "Return a path as a `Path`, and a picture in any other form as a `PILDigit`."
    if isinstance(picture, str):
        return Path(picture)
    return picture if isinstance(picture, (Path, PILDigit)) else PILDigit.create(picture)


def _is_one_picture(items) -> bool:
    "Return whether an array or tensor is one picture, `[h, w]` or `[h, w, channels]`, not several."
    shape = getattr(items, "shape", ())
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))


def held_out_images(
    source: Any,  # as for `digit_dls`
    holdout: float = 0.0,  # these settings choose the images
    seed: int = 42,
) -> LabelledImages:
    "Return the images that `digit_dls` holds out of a source."
    dls = digit_dls(source, bs=1, holdout=holdout, seed=seed, device="cpu", resident=True)
    return LabelledImages(pixels=dls.valid.pixels.numpy(), labels=dls.valid.labels.numpy(),
                          vocab=list(dls.vocab), n_training=0, name=f"{source}, {HELD_OUT}",
                          validated_on=HELD_OUT)


def source_facts(
    source: str | Path = "mnist",  # as for `digit_dls`
) -> dict:  # path, counts {split: {class: n}}, bytes, sha256 of names and pixels
    "Return where the digits of `source` are, their number by class, their size and checksum."
    digits = open_digits(source)
    if isinstance(digits, LabelledImages):
        names = digits.image_names()
        pixels = torch.from_numpy(digits.pixels)
        n = digits.n_training
        parts = [(names[:n], pixels[:n]), (names[n:], pixels[n:])]
        return {"path": digits.name, "counts": digits.counts(), "bytes": digits.pixels.nbytes,
                "sha256": pixels_checksum(*(part for part in parts if part[0]))}
    splits = {split: digits / split for split in folder_splits(digits)} or {"": digits}
    files = [_in_order(get_image_files, folder) for folder in splits.values()]
    pixels = load_pixels([file for part in files for file in part], digits)
    names = [[file.relative_to(digits).as_posix() for file in part] for part in files]
    return {"path": digits,
            "counts": {split: class_counts(folder) for split, folder in splits.items()},
            "bytes": sum(file.stat().st_size for part in files for file in part),
            "sha256": pixels_checksum(*zip(names, pixels.split(list(map(len, files))),
                                           strict=True))}
