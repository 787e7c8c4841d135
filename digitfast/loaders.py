"""From a folder of digits to fastai's `DataLoaders`."""
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import IntToFloatTensor, get_image_files, image_extensions
from fastai.torch_core import TensorCategory, TensorImageBW, default_device
from fastai.vision.data import ImageDataLoaders
from fastcore.basics import listify
from PIL import Image

from digitfast.errors import BadData, BadSetting, DataNotFound
from digitfast.images import FitSize, PILDigit
from digitfast.sources import class_counts, digits_path
from digitfast.tensors import channels_last, load_pixels, pixels_checksum

#: Names of the two splits' folders, training first, in the order in which they are looked for.
SPLITS = (("training", "testing"), ("train", "valid"), ("train", "val"), ("train", "test"))
LARGEST = 1024  # side of an image, in pixels
RESIDENT_BYTES = 2 * 2**30  # what all images together may take in memory; on a GPU a quarter of what is free, if less
_CLUTTER = {"Thumbs.db", "desktop.ini"}  # what operating systems leave in folders of pictures


class ResidentDL(TfmdDL):
    """fastai's `DataLoader` over images that are all in memory, on the device: a batch is drawn by one indexing.

    The dataset stays the one of the files, so that everything that asks for an item, its name or its transforms finds
    it. A loader of other items (`test_dl`, `export`) reads its files again.

    Memory: batches are channels-last, which convolutions take at once instead of turning their input round.
    """

    def __init__(self, dataset, pixels: torch.Tensor = None, labels: torch.Tensor = None, **kwargs):
        super().__init__(dataset, **{**kwargs, "num_workers": 0})
        self.pixels, self.labels = pixels, labels  # uint8 `[n, h, w]`, int64 `[n]`, in the dataset's order
        if self.device is not None:
            self.to(self.device)

    def to(self, device):
        super().to(device)
        self.pixels, self.labels = self.pixels.to(device), self.labels.to(device)
        return self

    def new(self, dataset=None, cls=None, **kwargs):
        if dataset is None or dataset is self.dataset:
            return super().new(dataset, cls, pixels=self.pixels, labels=self.labels, **kwargs)
        return super().new(dataset, cls or TfmdDL, **kwargs)

    def get_idxs(self) -> torch.Tensor:  # fastai puts a list in its place to have items in an order of its own
        if not self.shuffle:
            return torch.arange(self.n)
        return torch.randperm(self.n, generator=torch.Generator().manual_seed(self.rng.randrange(2**63)))

    def create_batches(self, samps) -> Iterator:  # for fastai's `DistributedDL`, which asks only for these
        for idxs in self.chunkify(samps):
            yield self._draw(torch.tensor(list(idxs), device=self.pixels.device))

    def _draw(self, idxs: torch.Tensor) -> tuple[TensorImageBW, TensorCategory]:
        "The images of `idxs`, as uint8 `[n, 1, h, w]`, and their labels."
        return (torch.as_subclass(self.pixels.index_select(0, idxs).unsqueeze(1), TensorImageBW),
                torch.as_subclass(self.labels.index_select(0, idxs), TensorCategory))

    def index_batches(self) -> tuple[torch.Tensor, ...]:
        "Begin a pass over the images: the indices of each batch, on the device."
        self.randomize()
        self.before_iter()
        idxs = self.get_idxs()
        if not isinstance(idxs, torch.Tensor):
            idxs = torch.tensor(list(islice(idxs, self.n)))  # show_batch(unique=True) has them without end
        return idxs.to(self.pixels.device).split(self.bs)[:len(self)]

    def batch(
        self,
        idxs: torch.Tensor,  # of the images, on the device
    ) -> tuple[TensorImageBW, TensorCategory]:
        "The batch of these images, transformed."
        images, labels = self._draw(idxs)
        if [type(f) for f in self.after_batch.fs] == [IntToFloatTensor]:
            # at once, since the pipeline's own way takes as long as a step of a small network
            images = torch.as_subclass(images, torch.Tensor).float().div_(255)
            return torch.as_subclass(channels_last(images), TensorImageBW), labels
        images, labels = self.after_batch((images, labels))
        return channels_last(images), labels

    def __iter__(self):
        for idxs in self.index_batches():
            yield self.batch(idxs)
        self.after_iter()


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
        elif isinstance(test_items, (str, Path, bytes, Image.Image)) or _is_one_picture(test_items):
            test_items = [test_items]
        items = [Path(o) if isinstance(o, str) else o if isinstance(o, (Path, PILDigit)) else PILDigit.create(o)
                 for o in test_items]
        return super().test_dl(items, rm_type_tfms=rm_type_tfms, with_labels=with_labels, **kwargs)

    def checksum(self) -> str | None:
        "SHA-256 over the names and pixels of all images here; None if they are not kept in memory."
        if not all(isinstance(dl, ResidentDL) for dl in self.loaders):
            return None
        names = [f.relative_to(self.path).as_posix() for dl in self.loaders for f in dl.dataset.items]
        return pixels_checksum(names, torch.cat([dl.pixels for dl in self.loaders]))


def digit_dls(
    path: str | Path,  # folder with a training and a test split: training/ and testing/, or train/ and val/
    bs: int = 128,  # images a batch; where several processes train together, of all of them
    holdout: float = 0.0,  # part of the training images to validate on instead of the test split, 0 to below 1
    seed: int = 42,  # of the choice of the held-out images
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

    Shapes: batches of `[bs, 1, size, size]` floats, 0 = paper to 1 = ink, and `[bs]` class indices.
    Raises: `DataNotFound`, `BadData` (a missing split, an empty class, a file that is no image), `BadImage`.
    """
    path = Path(path).expanduser()
    if not 0 <= holdout < 1:
        raise BadSetting(f"holdout={holdout} is no part of the training images; allowed are 0 to below 1, such as 0.1")
    if not 1 <= size <= LARGEST:
        raise BadSetting(f"size={size}: the side of an image is 1 to {LARGEST} pixels, 28 for MNIST")
    train, valid = find_splits(path, need_valid=not holdout)
    classes = _classes(path / train)
    split = {"valid_pct": holdout} if holdout else {"train": train, "valid": valid}
    if not holdout and (strange := set(_classes(path / valid)) ^ set(classes)):
        raise BadData(f"{path / train} and {path / valid} have not the same classes; only one has: "
                      f"{', '.join(sorted(strange))}")
    device = named_device(device)
    if not bs >= 1:
        raise BadSetting(f"bs={bs}: at least 1 image a batch is wanted")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # what `seed=` of fastai's does, which would seed those of GPUs too
        dls = ImageDataLoaders.from_folder(
            path / train if holdout else path, **split, vocab=classes, img_cls=PILDigit, bs=bs,
            item_tfms=[FitSize(size), *listify(item_tfms)], batch_tfms=batch_tfms,
            val_bs=val_bs or _validation_batch(bs, size, device),
            num_workers=num_workers, device=device)
    if bs > (n := len(dls.train_ds)):
        raise BadSetting(f"bs={bs} is more than the {n} training images of {path}; try bs={max(1, n // 10)}")
    if not len(dls.valid_ds):
        raise BadSetting(f"holdout={holdout} of {n} training images is none; take a larger part")
    if resident is None:
        resident = not item_tfms and (n + len(dls.valid_ds)) * size * size <= _resident_limit(dls.device)
    elif resident and item_tfms:
        raise BadSetting("images in memory have no item_tfms; give batch_tfms, which run on the device, "
                         "or resident=False")
    loaders = _make_resident(dls, path, size) if resident else dls.loaders
    return DigitDataLoaders(*loaders, path=path, device=dls.device)


def named_device(
    device: str | torch.device | None,  # such as "cpu", "cuda" or "cuda:1"; None: the GPU where there is one
) -> torch.device:
    "The device of that name, with its number if it is a GPU. Raises: `BadSetting` for one that is not there."
    if device is None:
        return default_device()
    try:
        found = torch.device(device)
        if found.type == "cuda":
            found = torch.device("cuda", torch.cuda.current_device() if found.index is None else found.index)
            torch.cuda.get_device_properties(found)
    except (RuntimeError, AssertionError, TypeError) as e:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
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
    counts = {split: class_counts(path / split) for split in find_splits(path)}
    files = sorted(get_image_files(path, folders=list(counts)))
    return {"path": path, "counts": counts, "bytes": sum(f.stat().st_size for f in files),
            "sha256": pixels_checksum([f.relative_to(path).as_posix() for f in files], load_pixels(files, path))}


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
    there = sorted(f for f in split.iterdir() if not f.name.startswith(".") and f.name not in _CLUTTER)
    folders = [d for d in there if d.is_dir()]
    if stray := [f for f in there if f.suffix.lower() in image_extensions]:
        raise BadData(f"{stray[0]} is in no class folder; move it into the one of its class")
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
