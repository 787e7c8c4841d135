"""The digits of a run: its source, in the form of the network that it starts from, and MNIST's."""
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from digitfast.data.facts import held_out_images
from digitfast.data.forms import (
    evaluation_digits,
    in_parts,
    is_split,
    labelled_pictures,
    open_digits,
    validation_name,
)
from digitfast.data.labelled import LabelledImages, labelled_images
from digitfast.data.mnist_form import SIDE, is_in_mnist_form
from digitfast.data.pictures import fit_square, read_grey, read_picture
from digitfast.data.pixel_cache import load_pixels
from digitfast.data.sources import digits_path
from digitfast.errors import BadData, BadSetting
from digitfast.inference.predictor import SUFFIXES, Predictor, open_predictor
from digitfast.reading.ink import even_ink
from digitfast.reading.line_search import network_form
from digitfast.reading.reader import read_digit
from digitfast.runs.folders import find_run
from digitfast.training.recipe import Recipe

READER = "reader"  # name of the bundled network
REPLAYED = 20_000  # least images of an epoch, of the source and of MNIST together


def open_start(
    start: str,  # "reader", name or folder of a run, or a .safetensors
    runs: str | Path = "runs",  # folder of the run folders
) -> Predictor:
    "Return the network to start from. Raises: `RunNotFound`, `BadData`, `BadSetting` for an .onnx."
    if start == READER:
        found = Predictor.packed()
    elif Path(start).suffix in SUFFIXES:
        found = open_predictor(start)
    else:
        found = find_run(start, runs).predictor()
    if not hasattr(found.network, "model"):
        raise BadSetting(f"{start} cannot be trained; start from a run or a .safetensors")
    return found


def run_digits(
    settings: Mapping[str, Any],  # of the run: all fields of its `Recipe`
    start: Predictor | None = None,  # that it starts from; None: it is opened if there is one
    fetch: bool = False,  # fetch a source that is not on disk; only if a person named it
) -> Path | LabelledImages:
    """Return the digits that a run learns from and validates on.

    Raises: `DataNotFound`, `BadData`; `BadSetting` for a replay without a network of digits.
    """
    digits = open_digits(settings["source"], fetch)
    if settings["start"] and not _is_in_form(digits):
        start = start or open_start(settings["start"], settings["runs"])
        if start.form == "mnist":
            digits = _in_memory(digits, lambda picture: _form_of(picture, start))
    if replay := settings["replay"]:
        own = _in_memory(digits, lambda picture: np.asarray(fit_square(read_grey(picture), SIDE)))
        digits = _with_mnist(own, start, replay, settings["seed"])
    return digits


def validation_digits(
    predictor: Predictor,  # of a run
) -> Path | LabelledImages:
    """Return the images to evaluate a network on: those of its source that it did not learn from.

    Of a source without a split they are the ones that were held out.
    """
    settings = checked_settings(predictor.facts.get("settings", {}))
    digits = run_digits(settings)
    if is_split(digits):
        return evaluation_digits(digits)
    return held_out_images(digits, settings["holdout"], settings["seed"], predictor.size)


def checked_settings(
    given: Mapping[str, Any],  # of a run, as a file says them; missing ones have their defaults
) -> dict[str, Any]:
    "Return all settings of a run. Raises: `BadData` for damaged ones."
    known = {setting.name for setting in fields(Recipe)}
    try:
        return asdict(Recipe(**{name: given[name] for name in known & given.keys()}))
    except BadSetting as e:
        raise BadData(f"the settings of the run are damaged: {e}") from e


def _is_in_form(digits: Path | LabelledImages, n: int = 100) -> bool:
    "Return whether the digits are in MNIST's form, by `n` of them."
    pictures = labelled_pictures(in_parts(digits)[0])[0]
    some = [np.asarray(read_grey(picture)) for picture in pictures[::max(1, len(pictures) // n)]]
    return len({image.shape for image in some}) == 1 and is_in_mnist_form(np.stack(some))


def _in_memory(digits: Path | LabelledImages, form: Callable[[Any], np.ndarray]) -> LabelledImages:
    "Return the digits as images in memory; `form` makes one of a picture."
    arrays: list[Any] = []
    for part in in_parts(digits):
        pictures, names = labelled_pictures(part)
        arrays += [np.stack([form(picture) for picture in pictures]), names]
    validated_on = validation_name(digits) if len(arrays) > 2 else ""
    return labelled_images(*arrays, name=str(digits), validated_on=validated_on)


def _form_of(picture: Any, start: Predictor) -> np.ndarray:
    "Return a picture as `read_digit` shows it to the network; all ink where it finds no digit."
    digit = read_digit(picture, start).digit
    if digit is not None:
        return digit.image
    return network_form(even_ink(read_picture(picture)[0], "auto").density, start)


def _with_mnist(
    own: LabelledImages,
    start: Predictor | None,  # None where it was checked before
    replay: float,
    seed: int,
) -> LabelledImages:
    """Return the training images of `own`, repeated, among random ones of MNIST's.

    MNIST's test images validate: they show what has been forgotten.
    """
    digits = list("0123456789")
    if start and (start.vocab != digits or start.size != SIDE):
        raise BadSetting("replay needs a network of MNIST's ten digits to start from, such as "
                         f"start={READER!r}")
    if strange := sorted(set(own.vocab) - set(digits)):
        raise BadSetting(f"replay needs digits; {own} also has {', '.join(strange)}")
    n_own = own.n_training
    total = max(REPLAYED, round(n_own / (1 - replay)))
    rng = np.random.default_rng(seed)
    path = digits_path()
    files, test = (labelled_pictures(part)[0] for part in in_parts(path))
    shuffled = rng.permutation(len(files))
    files = [files[i] for i in np.resize(shuffled, round(total * replay))]
    rows = np.resize(np.arange(n_own), total - len(files))
    mnist = load_pixels([*files, *test], path).numpy()
    labels = np.array([int(own.vocab[i]) for i in own.labels])
    return LabelledImages(
        pixels=np.concatenate([own.pixels[rows], mnist]),
        labels=np.concatenate([labels[rows], [int(f.parent.name) for f in (*files, *test)]]),
        vocab=digits, n_training=total, name=f"{own} among images of MNIST",
        validated_on="test images")
