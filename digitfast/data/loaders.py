"""From a folder of digits to fastai's `DataLoaders`."""
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from pathlib import Path

import torch
from fastai.data.core import DataLoaders, TfmdLists
from fastai.data.transforms import Normalize, get_image_files
from fastai.torch_core import default_device, set_seed
from fastai.vision.data import ImageDataLoaders
from fastcore.basics import listify, noop
from PIL import Image

from digitfast.data.folders import TEST_SPLITS, class_counts, class_names, find_splits
from digitfast.data.images import FitSize, PILDigit
from digitfast.data.pixel_cache import load_pixels, pixels_checksum
from digitfast.data.resident import DigitDL, ResidentDL
from digitfast.data.sources import digits_path
from digitfast.errors import BadData, BadSetting

LARGEST = 1024  # side of an image, in pixels
RESIDENT_BYTES = 2 * 2**30  # what all images together may take in memory; on a GPU a quarter of what is free, if less


class DigitDataLoaders(ImageDataLoaders):
    "fastai's `ImageDataLoaders`, with a `test_dl` (and so a `Learner.predict`) that takes any form of picture."

    @classmethod
    def from_dblock(cls, dblock, source, **kwargs):
        "As fastai's, with files in the order of their names, whatever the order in which a file system lists them."
        if dblock.get_items:
            dblock.get_items = partial(_in_order, dblock.get_items)
        dls = super().from_dblock(dblock, source, **kwargs)
        for items in _item_lists(dls):
            items.splits = [range(len(items))]  # fastai keeps the indices of all splits in each one
        return dls

    def add_tfms(self, tfms, event, dl_idx=None):
        "As fastai's. Raises: `BadSetting` for a `Normalize` with statistics of more channels than the images have."
        if event == "after_batch":
            _check_channels([*self[0].after_batch.fs, *listify(tfms)])
        return super().add_tfms(tfms, event, dl_idx)

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
        elif isinstance(test_items, (str, Path, bytes, Image.Image)) or _is_one_picture(test_items):
            test_items = [test_items]
        items = [Path(o) if isinstance(o, str) else o if isinstance(o, (Path, PILDigit)) else PILDigit.create(o)
                 for o in test_items]
        return super().test_dl(items, rm_type_tfms=rm_type_tfms, with_labels=with_labels, **kwargs)

    def new_empty(self):
        "As fastai's, for an exported `Learner`: nothing in it says where and on what system its digits were."
        empty = super().new_empty()
        empty.path = Path()
        for items in _item_lists(empty):
            items.types = [Path if issubclass(kind, Path) else kind for kind in items.types]
            for tfm in items.tfms.fs:
                for name in ("encodes", "decodes"):  # which remember the types that they have met
                    getattr(getattr(tfm, name, None), "clear_cache", noop)()
        return empty

    def __getstate__(self):
        return {**vars(self), "path": str(self.path)}  # a Path does not open on another system

    def __setstate__(self, state: dict):
        vars(self).update(state, path=Path(state["path"]))

    def checksum(self) -> str | None:
        "SHA-256 over the names and pixels of both splits, in their order; None if they are not kept in memory."
        if not all(isinstance(dl, ResidentDL) for dl in self.loaders):
            return None
        return pixels_checksum(*(([f.relative_to(self.path).as_posix() for f in dl.dataset.items], dl.pixels)
                                 for dl in self.loaders))


def digit_dls(
    path: str | Path,  # folder with a training and a test split: training/ and testing/, or train/ and val/
    bs: int = 128,  # images a batch; where several processes train together, of all of them
    holdout: float = 0.0,  # part of the training images to validate on instead of the test split, 0 to below 1
    seed: int | None = None,  # of the choice of the held-out images (None: 42) and, where given, of what comes next
    size: int = 28,  # side of the square images a network sees, in pixels
    item_tfms=None,  # transforms of one image, after it has got its size
    batch_tfms=None,  # transforms of a batch
    val_bs: int | None = None,  # images a batch of `dls.valid`; None: 4 * bs, or more where a GPU idles with that
    num_workers: int | None = None,  # processes that read images; None: one a core, 16 at most
    device: str | torch.device | None = None,  # where batches go; None: the GPU where there is one
    resident: bool | None = None,  # keep all images in memory, on the device; None: where they fit (`RESIDENT_BYTES`)
) -> DigitDataLoaders:
    """fastai `DataLoaders` of the digits below `path`, one folder a class.

    The test split is `dls.valid`, unless `holdout` is given: then `dls.valid` is that part of the *training* images,
    and no image of the test split is read. Images are never mirrored.

    Images are decoded once and kept in memory, one byte a pixel (55 MB for MNIST), and in a cache file; with
    `resident=False`, and where there are `item_tfms`, files are read again for every batch, as fastai does.

    Nothing here depends on the order in which a file system lists files, and the random generators are left as they
    are. With a `seed` they are set by it in the end, as by fastai's `set_seed`, so that the weights of the `Learner`
    that is made next and the order of its images are the same every time.

    Shapes: batches of `[bs, 1, size, size]` floats, 0 = paper to 1 = ink, and `[bs]` class indices.
    Raises: `DataNotFound`, `BadData` (a missing split, an empty class, a file that is no image), `BadImage`.
    """
    path = Path(path).expanduser()
    if not 0 <= holdout < 1:
        raise BadSetting(f"holdout={holdout} is no part of the training images; allowed are 0 to below 1, such as 0.1")
    if not 1 <= size <= LARGEST:
        raise BadSetting(f"size={size}: the side of an image is 1 to {LARGEST} pixels, 28 for MNIST")
    train, valid = find_splits(path, need_valid=not holdout)
    classes = class_names(path / train)
    split = {"valid_pct": holdout} if holdout else {"train": train, "valid": valid}
    if not holdout and (strange := set(class_names(path / valid)) ^ set(classes)):
        raise BadData(f"{path / train} and {path / valid} have not the same classes; only one has: "
                      f"{', '.join(sorted(strange))}")
    device = named_device(device)
    if not (isinstance(bs, Integral) and bs >= 1):
        raise BadSetting(f"bs must be a whole number of at least 1, not {bs!r}")
    bs = int(bs)  # of numpy's numbers torch takes none
    seed = seed if seed is None else int(seed)
    _check_channels(listify(batch_tfms))
    with _generators_kept():
        torch.default_generator.manual_seed(42 if seed is None else seed)  # fastai's `seed=` seeds those of GPUs, too
        dls = DigitDataLoaders.from_folder(
            path / train if holdout else path, **split, vocab=classes, img_cls=PILDigit, bs=bs,
            item_tfms=[FitSize(size), *listify(item_tfms)], batch_tfms=batch_tfms,
            val_bs=val_bs or _validation_batch(bs, size, device),
            num_workers=num_workers, device=device, dl_type=DigitDL)
    _check_images(dls, path, bs, holdout)
    if resident is None:
        n = len(dls.train_ds) + len(dls.valid_ds)
        resident = not item_tfms and n * size * size <= _resident_limit(dls.device)
    elif resident and item_tfms:
        raise BadSetting("images in memory have no item_tfms; give batch_tfms, which run on the device, "
                         "or resident=False")
    with _generators_kept():
        loaders = _make_resident(dls, path, size) if resident else dls.loaders
    if seed is not None:
        set_seed(seed)
    return DigitDataLoaders(*loaders, path=path, device=dls.device)


def _check_images(dls: DataLoaders, path: Path, bs: int, holdout: float) -> None:
    "Raise `BadSetting` where there are too few images for a batch, for validation or for a class."
    if bs > (n := len(dls.train_ds)):
        raise BadSetting(f"bs={bs} is more than the {n} training images of {path}; try bs={max(1, n // 10)}")
    if not len(dls.valid_ds):
        raise BadSetting(f"holdout={holdout} of {n} training images is none; take a larger part")
    if missing := set(dls.vocab) - {file.parent.name for file in dls.train_ds.items}:
        raise BadSetting(f"holdout={holdout} leaves no training image of {', '.join(sorted(missing))}; "
                         "take a smaller part, or add images")


def _item_lists(dls: DataLoaders) -> list[TfmdLists]:
    "The lists of images and of labels of both splits."
    return [items for dl in dls.loaders for items in dl.dataset.tls]


def _in_order(get_items: Callable[[Path], list[Path]], source: Path) -> list[Path]:
    "The files that `get_items` lists, by their names."
    return sorted(get_items(source), key=Path.as_posix)


@contextmanager
def _generators_kept() -> Iterator[None]:
    "After the context the generators of Python and torch are as before: fastai's loaders draw from them."
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)


def _check_channels(tfms: list) -> None:
    "Raise `BadSetting` for statistics of colour images: they would make three channels of one, without a word."
    for tfm in tfms:
        if not type(tfm).__module__.startswith(("fastai.", "digitfast.")):
            return  # it may make three channels by itself
        if isinstance(tfm, Normalize) and tfm.mean is not None and tfm.mean.shape[1] != 1:
            raise BadSetting(f"Normalize has statistics of {tfm.mean.shape[1]} channels, and these images are grey: "
                             "vision_learner(dls, arch, n_in=1) adapts a pretrained network to them, and "
                             "Normalize.from_stats([0.1307], [0.3081]) has MNIST's statistics")


def named_device(
    device: str | torch.device | None,  # such as "cpu", "cuda" or "cuda:1"; None: the GPU where there is one
) -> torch.device:
    "The device of that name, with its number if it is a GPU. Raises: `BadSetting` for one that is not there."
    if device is None:
        return default_device()
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as e:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())),
                 *(["mps"] if torch.backends.mps.is_available() else [])]
        raise BadSetting(f"device={str(device)!r} is not on this machine; it has {', '.join(there)}") from e
    return found


def _validation_batch(bs: int, size: int, device: torch.device) -> int:
    "Images per batch of validation, where no gradients take up memory: on a GPU as many as 2048 of 28×28 have pixels."
    return max(4 * bs, 2048 * 28**2 // size**2 if device.type == "cuda" else 0)


def _resident_limit(device: torch.device) -> int:
    "Bytes that all images together may take on `device`: of a GPU's memory, a quarter of what is free."
    if device.type == "cuda":
        return min(RESIDENT_BYTES, torch.cuda.mem_get_info(device)[0] // 4)
    return RESIDENT_BYTES


def _make_resident(dls: DataLoaders, path: Path, size: int) -> list[ResidentDL]:
    "The loaders of `dls` with all images in memory."
    datasets = [dl.dataset for dl in dls.loaders]
    files = [list(dataset.items) for dataset in datasets]
    pixels = load_pixels([file for split in files for file in split], path, size).split([len(split) for split in files])
    index = dls.vocab.o2i
    return [dl.new(cls=ResidentDL, pixels=split_pixels, labels=torch.tensor([index[f.parent.name] for f in split]))
            for dl, split, split_pixels in zip(dls.loaders, files, pixels, strict=True)]


def _is_one_picture(items) -> bool:
    "Whether an array or tensor is one picture, `[h, w]` or `[h, w, channels]`, rather than several."
    shape = getattr(items, "shape", ())
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))


def folder_facts(
    source: str | Path = "mnist",  # what `digits_path` takes
) -> dict:  # path, counts {split: {class: n}}, bytes, sha256 of names and pixels
    "Where the digits of `source` are, how many images each class has, their size on the disk and their checksum."
    path = digits_path(source)
    there = dict.fromkeys([*find_splits(path), *(split for split in TEST_SPLITS if (path / split).is_dir())])
    counts = {split: class_counts(path / split) for split in there}
    splits = [_in_order(get_image_files, path / split) for split in there]
    files = [file for split in splits for file in split]
    pixels = load_pixels(files, path).split([len(split) for split in splits])
    names = [[file.relative_to(path).as_posix() for file in split] for split in splits]
    return {"path": path, "counts": counts, "bytes": sum(file.stat().st_size for file in files),
            "sha256": pixels_checksum(*zip(names, pixels, strict=True))}
