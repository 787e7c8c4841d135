"""Answers for many pictures; one that cannot be read does not stop the others."""
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from digitfast.data.array_files import TABLES, read_table
from digitfast.data.documents import DOCUMENTS, document_pages
from digitfast.data.pictures import CLUTTER, PICTURES, fit_square, one_line_name, read_grey
from digitfast.errors import BadData, BadImage, BadSetting
from digitfast.inference.predictor import Predictor
from digitfast.reading.figures import check_figures, draw_boxes, draw_steps
from digitfast.reading.reader import read_digit, read_digits
from digitfast.reading.result import described

MOST_THREADS = 8  # that read pictures at a time; each may hold a large photo


def predict_pictures(
    images: Iterable[str | Path],  # files, and folders that stand for all pictures in them
    predictor: Predictor | None = None,  # None: the bundled network
    ink: str = "auto",  # dark or light, against its paper
    as_is: bool = False,  # whether the pictures are like those of the training, except in size
    steps: str | Path | None = None,  # .png to draw the steps of the one picture into
    watched: Callable[[Sequence], Iterable] = iter,  # goes through the files
) -> list[dict]:
    """Return the one digit in each picture, as a dict per file.

    Its keys are file, answer, digit (None if unsure), guess, probability, probabilities (by class),
    no_digit, box, and digits: how many there are. A picture that cannot be read has file and error.
    A .csv has a picture in each row, as Kaggle's test.csv has; these are taken as they are, and
    their file is FILE:1, FILE:2, ….
    """
    images = _listed(images)
    predictor = predictor or Predictor.packed()
    if as_is and steps:
        raise BadSetting(f"{steps} cannot show the steps of a picture that is taken as it is; "
                         "omit as_is or steps")
    check_figures(images, steps)

    def answers(file: Path) -> list[dict]:
        if file.suffix.lower() in TABLES:
            return _of_table(file, predictor)
        return [{"file": name, **(_as_is([read_grey(page)], predictor)[0] if as_is
                                  else _one(page, predictor, ink, steps))}
                for name, page in _pages(file, steps)]
    return _answers(images, answers, watched)


def read_pictures(
    images: Iterable[str | Path],  # files, and folders that stand for all pictures in them
    predictor: Predictor | None = None,  # None: the bundled network
    ink: str = "auto",  # dark or light, against its paper
    boxes: str | Path | None = None,  # .png to draw the one picture into, with a box per digit
    steps: str | Path | None = None,  # .png to draw the steps of the one picture into
    watched: Callable[[Sequence], Iterable] = iter,  # goes through the files
    region: Sequence[float] | None = None,  # as for `read_digits`
    n_digits: int | None = None,  # as for `read_digits`
) -> list[dict]:
    """Return all digits in each picture, as a dict per file.

    Its keys are file, text, and lines and signs: the digits of each line, and the signs beside
    them. A digit has its label, probability and box. A picture that cannot be read has file and
    error.
    """
    images = _listed(images)
    predictor = predictor or Predictor.packed()
    check_figures(images, boxes, steps)

    def answers(file: Path) -> list[dict]:
        return [{"file": name, **_all(page, predictor, ink, boxes, steps, region, n_digits)}
                for name, page in _pages(file, boxes or steps)]
    return _answers(images, answers, watched)


def _listed(images: Iterable[str | Path]) -> list[str | Path]:
    return [images] if isinstance(images, (str, Path)) else list(images)


def _answers(
    images: Iterable[str | Path],
    answer: Callable[[Path], list[dict]],  # to one file
    watched: Callable[[Sequence], Iterable],
) -> list[dict]:
    "Return the answers to all files, in their order; several are read at a time, in threads."
    def answers_to(found: tuple[Path, str]) -> list[dict]:
        file, error = found
        try:
            return [{"file": str(file), "error": error}] if error else answer(file)
        except BadImage as e:
            return [{"file": str(file), "error": str(e)}]

    files = list(_files(images))
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        found = pool.map(answers_to, files)
        try:
            return [entry for _, entries in zip(watched(files), found, strict=True)
                    for entry in entries]
        except BaseException:  # Ctrl-C does not wait for all files
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _pages(
    file: Path,
    figure: str | Path | None,  # .png that is to show the one page
) -> Iterable[tuple[str, Path | Image.Image]]:
    if not figure:
        return document_pages(file)
    pages = list(islice(document_pages(file), 2))
    if len(pages) > 1:
        raise BadSetting(f"{figure} can show only one picture, and {file} has several pages")
    return pages


def _files(images: Iterable[str | Path]) -> Iterator[tuple[Path, str]]:
    "Yield each file, and what is wrong with it before it is opened, or nothing."
    for image in images:
        if not isinstance(image, (str, os.PathLike)):
            raise BadSetting("images must be paths of files and folders, "
                             f"not {type(image).__name__}; read_digit takes a picture in memory")
        image = Path(image)
        try:
            if not image.is_dir():
                yield image, ""
                continue
            files = sorted(f for f in image.rglob("*") if f.is_file() and f.name not in CLUTTER
                           and not any(part.startswith(".") for part in f.relative_to(image).parts))
        except (OSError, ValueError) as e:  # a folder without permission, a name with a null byte
            yield image, (f"{one_line_name(image)} cannot be read: "
                          f"{getattr(e, 'strerror', None) or e}")
            continue
        found = [file for file in files if file.suffix.lower() in PICTURES | DOCUMENTS]
        yield from ((file, "") for file in found)
        if not found:
            yield image, f"{one_line_name(image)} holds no pictures"
        if others := [one_line_name(file.name) for file in files
                      if file.suffix.lower() not in PICTURES | DOCUMENTS]:
            warnings.warn(f"{one_line_name(image)} holds {len(others)} other files, which are "
                          f"left out: {', '.join(others[:3])}{', …' if len(others) > 3 else ''}",
                          stacklevel=4)


def _one(page: Path | Image.Image, predictor: Predictor, ink: str,
         steps: str | Path | None) -> dict:
    reading = read_digit(page, predictor, ink)
    digit = reading.digit
    if steps:
        draw_steps(reading, steps)
    if digit is None:
        return {"answer": "no digit", "digit": None}
    return {"answer": digit.answer, **described(digit), "no_digit": digit.no_digit,
            "probabilities": digit.probabilities, "digits": len(reading.digits)}


def _of_table(file: Path, predictor: Predictor) -> list[dict]:
    try:
        pixels, _ = read_table(file)
    except BadData as e:
        raise BadImage(str(e)) from e
    return [{"file": f"{file}:{i}", **answer}
            for i, answer in enumerate(_as_is(map(Image.fromarray, pixels), predictor), 1)]


def _as_is(images: Iterable[Image.Image], predictor: Predictor) -> list[dict]:
    "Return answers to grey images that are like those of the training, except in size."
    squares = np.stack([np.asarray(fit_square(image, predictor.size)) for image in images])
    return [_answer(chances, predictor) for chances in predictor.chances(squares).tolist()]


def _answer(chances: list[float], predictor: Predictor) -> dict:
    probabilities = dict(zip(predictor.vocab, chances, strict=False))
    best = max(probabilities, key=probabilities.__getitem__)
    likelier_none = chances[-1] > probabilities[best]
    label = None if likelier_none or probabilities[best] < predictor.threshold else best
    return {"answer": label or ("no digit" if likelier_none else "unsure"), "digit": label,
            "guess": best, "probability": probabilities[best], "no_digit": chances[-1],
            "probabilities": probabilities}


def _all(page: Path | Image.Image, predictor: Predictor, ink: str, boxes: str | Path | None,
         steps: str | Path | None, region: Sequence[float] | None, n_digits: int | None) -> dict:
    reading = read_digits(page, predictor, ink, region, n_digits)
    if boxes:
        draw_boxes(page, reading, boxes)
    if steps:
        draw_steps(reading, steps)
    return {"text": reading.text,
            "lines": [[described(digit) for digit in line] for line in reading.lines],
            "signs": [[{"sign": sign.text, "box": list(sign.box)} for sign in line]
                      for line in reading.signs]}
