"""fastai's `DataLoaders` that also take pictures in any form."""
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fastai.data.core import DataLoaders, TfmdLists
from fastai.data.transforms import Normalize, get_image_files, parent_label
from fastai.vision.data import ImageDataLoaders
from fastcore.basics import listify, noop
from PIL import Image

from digitfast.data.images import ImageInMemory, PILDigit, item_label, item_name
from digitfast.data.pixel_cache import pixels_checksum
from digitfast.data.resident import ResidentDL
from digitfast.errors import BadSetting


class DigitDataLoaders(ImageDataLoaders):
    "fastai's `ImageDataLoaders`, whose `test_dl` and `Learner.predict` take pictures in any form."
    holdout = 0.0  # part of the training images that validates
    validated_on = ""  # what the images that validate are called

    @classmethod
    def from_dblock(cls, dblock, source, **kwargs):
        "Do as fastai does, with files sorted by name, however the file system lists them."
        if dblock.get_items:
            dblock.get_items = partial(in_order, dblock.get_items)
        dblock.getters = [item_label if getter is parent_label else getter
                          for getter in dblock.getters]  # also knows images in memory
        dls = super().from_dblock(dblock, source, **kwargs)
        for items in _item_lists(dls):
            first = items.types[0]
            if isinstance(first, type) and issubclass(first, (Path, ImageInMemory)):
                items.types[0] = (Path, ImageInMemory)  # a picture to answer for may be either
            items.splits = [range(len(items))]  # fastai keeps all splits' indices in each split
        return dls

    def add_tfms(self, tfms, event, dl_idx=None):
        "Do as fastai does. Raises: `BadSetting` for a `Normalize` with colour statistics."
        if event == "after_batch":
            check_channels([*self[0].after_batch.fs, *listify(tfms)])
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


def _item_lists(dls: DataLoaders) -> list[TfmdLists]:
    "Return the lists of images and of labels of both splits."
    return [items for dl in dls.loaders for items in dl.dataset.tls]


def in_order(get_items: Callable[[Path], list[Path]], source: Path) -> list[Path]:
    "Return the files that `get_items` lists, sorted by name."
    return sorted(get_items(source), key=Path.as_posix)


def check_channels(tfms: list) -> None:
    "Raise `BadSetting` for colour statistics, which would silently make three channels of one."
    for tfm in tfms:
        if not type(tfm).__module__.startswith(("fastai.", "digitfast.")):
            return  # a user's transform may make three channels
        if isinstance(tfm, Normalize) and tfm.mean is not None and tfm.mean.shape[1] != 1:
            raise BadSetting(
                f"Normalize has statistics for {tfm.mean.shape[1]} channels, but these images are "
                "grey; use vision_learner(dls, arch, n_in=1) for a pretrained network, or "
                "Normalize.from_stats([0.1307], [0.3081]) for MNIST's statistics")


def _as_item(picture) -> Path | PILDigit:
    "Return a path as a `Path`, and a picture in any other form as a `PILDigit`."
    if isinstance(picture, str):
        return Path(picture)
    return picture if isinstance(picture, (Path, PILDigit)) else PILDigit.create(picture)


def _is_one_picture(items) -> bool:
    "Return whether an array or tensor is one picture, `[h, w]` or `[h, w, channels]`, not several."
    shape = getattr(items, "shape", ())
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
