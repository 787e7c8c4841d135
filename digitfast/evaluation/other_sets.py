"""Measure a network beyond MNIST: other writers, handwriting fonts, photos, and non-digits."""
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

from digitfast.data.sources import digits_path
from digitfast.errors import BadData
from digitfast.evaluation.accuracy import edit_distance, is_found, sure_answers
from digitfast.evaluation.evaluate import Answers, answer_pictures
from digitfast.inference.calibration import accuracy_over_coverage, expected_calibration_error
from digitfast.inference.predictor import Predictor
from digitfast.reading.reader import read_digits
from digitfast.synthetic.pages import synthetic_page
from digitfast.synthetic.photos import synthetic_photo

#: Handwriting fonts of Debian by file name, with the packages that contain them.
FONTS = {
    "dkg.ttf": "fonts-dkg-handwriting",
    "Breip.ttf": "fonts-breip",
    "Rufscript010.ttf": "fonts-rufscript",
    "SteveHand.ttf": "fonts-sjfonts",
    "Delphine.ttf": "fonts-sjfonts",
    "summersby.ttf": "fonts-summersby",
    "TomsonTalks.ttf": "fonts-tomsontalks",
    "Isabella.ttf": "fonts-isabella",
    "Kristi.ttf": "fonts-kristi",
    "Humor-Sans.ttf": "fonts-humor-sans",
    "BecauseWeLearn-Regular.otf": "fonts-bwht",
}


def evaluate_sets(
    predictor: Predictor,  # of the ten digits
    show: Callable[[str], None] = print,  # called with each line
    n_photos: int = 500,  # photos of one digit; half as many photos of rows are made
    n_pages: int = 50,
    seed: int = 20261124,
) -> None:
    """Print a table over all sets: how accurate the network is, and how often it refuses to answer.

    Raises: `BadData` if the network is not one of the ten digits.
    """
    if predictor.vocab != list("0123456789"):
        raise BadData("the network must know the ten digits to be measured on these sets; "
                      f"this one knows {', '.join(predictor.vocab)}")
    show(f"{'set':46} {'n':>6}  {'as it comes':>11}  {'read':>8}  {'right, sure':>11}  "
         f"{'wrong, sure':>11}  {'refused':>8}")
    files = sorted((digits_path() / "testing").glob("*/*.png"))
    mnist = answer_pictures(predictor, files, [int(file.parent.name) for file in files])
    _show_answers(show, "MNIST, test images", mnist, predictor)
    small, small_labels = load_digits(return_X_y=True)
    small = (small.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    _show_answers(show, "optdigits (8×8, other writers)",
                  answer_pictures(predictor, small, small_labels), predictor)
    fonts = find_fonts()
    if missing := sorted({package for name, package in FONTS.items() if name not in fonts}):
        show(f"  not installed, so left out: {', '.join(missing)}")
    if fonts:
        pictures, font_labels = zip(*font_digits(fonts.values()), strict=True)
        _show_answers(show, f"{len(fonts)} handwriting fonts",
                      answer_pictures(predictor, pictures, font_labels), predictor)
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(images))[:n_photos]
    photos = [synthetic_photo(images[i:i + 1], rng).image for i in chosen]
    _show_answers(show, "synthetic photos of one digit",
                  answer_pictures(predictor, photos, mnist.labels[chosen]), predictor)
    _show_rows(show, predictor, images, mnist.labels, n_photos // 2, rng)
    _show_pages(show, predictor, images, mnist.labels, n_pages, np.random.default_rng(seed))
    _show_refusals(show, predictor, fonts, rng)
    _show_calibration(show, mnist)


def _table_row(name: str, n: int, *shares: float | None) -> str:
    "Return a line under the heads of the table; None leaves a cell empty."
    widths = (11, 8, 11, 11, 8)
    cells = ["" if share is None else f"{share:.2%}" for share in shares]
    padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=False)]
    return "  ".join([f"{name:46} {n:6,}", *padded])


def _show_answers(
    show: Callable[[str], None],
    name: str,  # of the set
    answers: Answers,
    predictor: Predictor,
) -> None:
    "Show the accuracy as the pictures come and in MNIST's form, and the shares of sure answers."
    as_is = _accuracy(answers.as_is, answers.labels)
    read = _accuracy(answers.chances, answers.labels)
    sure = sure_answers(answers.chances, answers.labels, predictor.threshold)
    show(_table_row(name, len(answers.labels), as_is, read, *sure))


def _accuracy(chances: np.ndarray, labels: np.ndarray) -> float:
    "Return the share of the pictures in which the right digit was found, 0..1."
    right = chances[:, :-1].argmax(1) == labels
    return float((right & is_found(chances)).mean())


def _show_rows(
    show: Callable[[str], None],
    predictor: Predictor,
    images: np.ndarray,  # uint8 `[n, 28, 28]`, to draw from
    labels: np.ndarray,  # int `[n]`
    n_rows: int,
    rng: np.random.Generator,
) -> None:
    "Show how well photos of one row of digits are read, by edit distance and as a whole."
    digits = 0
    wrong = 0
    right_rows = 0
    for _ in range(n_rows):
        chosen = rng.permutation(len(images))[:rng.integers(2, 11)]
        reading = read_digits(synthetic_photo(images[chosen], rng).image, predictor)
        text = "".join(digit.guess for line in reading.lines for digit in line)
        truth = "".join(map(str, labels[chosen]))
        digits += len(truth)
        wrong += edit_distance(text, truth)
        right_rows += text == truth
    show(_table_row("synthetic photos of rows of 2 to 10, digits", digits, None,
                    1 - wrong / digits))
    show(_table_row("  rows that are right as a whole", n_rows, None, right_rows / n_rows))


def _show_pages(
    show: Callable[[str], None],
    predictor: Predictor,
    images: np.ndarray,  # uint8 `[n, 28, 28]`, to draw from
    labels: np.ndarray,  # int `[n]`
    n_pages: int,
    rng: np.random.Generator,
) -> None:
    "Show how well photos of pages are read, by edit distance and by whole lines."
    digits = 0
    wrong = 0
    lines = 0
    right_lines = 0
    for _ in range(n_pages):
        chosen = rng.permutation(len(images))[:rng.integers(10, 61)]
        page = synthetic_page(images[chosen], rng)
        reading = read_digits(page.image, predictor)
        texts = ["".join(digit.guess for digit in line) for line in reading.lines]
        truths = ["".join(map(str, line))
                  for line in np.split(labels[chosen], np.cumsum(page.lengths)[:-1])]
        digits += len(chosen)
        wrong += edit_distance("".join(texts), "".join(truths))
        lines += len(truths)
        right_lines += sum(truth in texts for truth in truths)
    show(_table_row("synthetic photos of pages, digits", digits, None, 1 - wrong / digits))
    show(_table_row("  lines that are right as a whole", lines, None, right_lines / lines))


def _show_refusals(
    show: Callable[[str], None],
    predictor: Predictor,
    fonts: dict[str, Path],  # as `find_fonts` returns them
    rng: np.random.Generator,
    n: int = 200,  # pictures per kind
) -> None:
    "Show how many pictures without a digit are refused."
    letters = "ACEFHJKMNPRTUVWXYacdefhjkmnprtuvwx"  # those that nobody takes for a digit
    sets = {"empty pages": [_empty_page(rng) for _ in range(n)],
            "scribbles": [_scribble(rng) for _ in range(n)]}
    if fonts:
        sets["letters of the handwriting fonts"] = [
            picture for picture, _ in font_digits(fonts.values(), letters)]
    for name, pictures in sets.items():
        answers = answer_pictures(predictor, pictures, [0] * len(pictures))
        sure = sure_answers(answers.chances, answers.labels, predictor.threshold)
        show(_table_row(f"no digit: {name}", len(pictures), None, None, None,
                        sure.right + sure.wrong, sure.refused))


def _show_calibration(show: Callable[[str], None], mnist: Answers) -> None:
    "Show how far the probabilities for MNIST's test images can be trusted."
    error = expected_calibration_error(mnist.chances, mnist.labels)
    show(f"expected calibration error on MNIST's test images: {error:.2%}")
    accuracies = accuracy_over_coverage(mnist.chances, mnist.labels).items()
    show("accuracy among the surest: "
         + ", ".join(f"{accuracy:.2%} of {part:.0%}" for part, accuracy in accuracies))


def find_fonts(
    folders: tuple[str, ...] = (
        "/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
) -> dict[str, Path]:
    "Return the installed handwriting fonts as files by name, in the order of `FONTS`."
    found: dict[str, Path] = {}
    for folder in folders:
        files = sorted(Path(folder).expanduser().rglob("*.[ot]tf"))
        found |= {file.name: file for file in files if file.name in FONTS}
    return {name: found[name] for name in FONTS if name in found}


def font_digits(
    fonts: Iterable[Path],
    characters: str = "0123456789",
) -> Iterator[tuple[Image.Image, int]]:  # mode "L", black on white; index of the character
    "Yield each character of each font in three sizes, off the centre of a page of 400×300 pixels."
    for font in fonts:
        for size, place in ((60, (40, 30)), (110, (180, 90)), (200, (120, 20))):
            face = ImageFont.truetype(font, size)
            for i, character in enumerate(characters):
                page = Image.new("L", (400, 300), 255)
                ImageDraw.Draw(page).text(place, character, fill=20, font=face)
                yield page, i


def _empty_page(rng: np.random.Generator) -> np.ndarray:
    "Return a page without writing, in even or uneven light, with more or less grain."
    y, x = np.mgrid[0:300, 0:400] / 300
    light = 230 - rng.uniform(0, 90) * (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1))
    return np.clip(light + rng.normal(0, rng.uniform(0, 12), light.shape), 0, 255).astype(np.uint8)


def _scribble(rng: np.random.Generator) -> Image.Image:
    "Return a page with a pen line drawn to and fro, crossing itself."
    page = Image.new("L", (300, 300), 245)
    points = np.cumsum(rng.normal(0, 1, (rng.integers(12, 40), 2)), axis=0)
    points = (points - points.min(0)) / np.ptp(points, axis=0) * rng.uniform(80, 220, 2) + 35
    width = int(rng.integers(3, 9))
    ImageDraw.Draw(page).line([tuple(p) for p in points], fill=30, width=width, joint="curve")
    return page
