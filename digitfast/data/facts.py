"""Facts about digits, without training: where they are, how many, which ones are held out."""
from pathlib import Path
from typing import Any

import torch
from fastai.data.transforms import get_image_files

from digitfast.data.dataloaders import in_order
from digitfast.data.folders import HELD_OUT, class_counts, folder_splits
from digitfast.data.forms import open_digits
from digitfast.data.labelled import LabelledImages
from digitfast.data.loaders import digit_dls
from digitfast.data.pixel_cache import load_pixels, pixels_checksum


def held_out_images(
    source: Any,  # as for `digit_dls`
    holdout: float = 0.0,  # these settings choose the images
    seed: int = 42,
    size: int = 28,  # side of the images, in pixels
) -> LabelledImages:
    "Return the images that `digit_dls` holds out of a source."
    dls = digit_dls(source, bs=1, holdout=holdout, seed=seed, size=size, device="cpu",
                    resident=True)
    return LabelledImages(pixels=dls.valid.pixels.numpy(), labels=dls.valid.labels.numpy(),
                          vocab=list(dls.vocab), n_training=0, name=f"{source} (held out)",
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
    files = [in_order(get_image_files, folder) for folder in splits.values()]
    pixels = load_pixels([file for part in files for file in part], digits)
    names = [[file.relative_to(digits).as_posix() for file in part] for part in files]
    return {"path": digits,
            "counts": {split: class_counts(folder) for split, folder in splits.items()},
            "bytes": sum(file.stat().st_size for part in files for file in part),
            "sha256": pixels_checksum(*zip(names, pixels.split(list(map(len, files))),
                                           strict=True))}
