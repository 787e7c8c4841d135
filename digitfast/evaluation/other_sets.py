"""Evidence beyond MNIST: other writers, handwriting fonts, photos, and what is no digit at all."""
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

from digitfast.data.sources import digits_path
from digitfast.errors import BadData
from digitfast.evaluation.accuracy import is_found, sure_answers
from digitfast.evaluation.evaluate import Answers, answer_pictures
from digitfast.inference.calibration import accuracy_over_coverage, expected_calibration_error
from digitfast.inference.predictor import Predictor
from digitfast.reading.reader import read_digits
from digitfast.synthetic.pages import synthetic_page
from digitfast.synthetic.photos import synthetic_photo

PHOTOS, PAGES, SEED = 500, 50, 20261124  # photos of one digit; pages; the seed of all
#: Handwriting fonts of Debian's, by the names of their files, and the packages that bring them.
FONTS = {
    "dkg.ttf": "fonts-dkg-handwriting", "Breip.ttf": "fonts-breip", "Rufscript010.ttf": "fonts-rufscript",
    "SteveHand.ttf": "fonts-sjfonts", "Delphine.ttf": "fonts-sjfonts", "summersby.ttf": "fonts-summersby",
    "TomsonTalks.ttf": "fonts-tomsontalks", "Isabella.ttf": "fonts-isabella", "Kristi.ttf": "fonts-kristi",
    "Humor-Sans.ttf": "fonts-humor-sans", "BecauseWeLearn-Regular.otf": "fonts-bwht",
}
FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
#: Letters that no person takes for a digit.
LETTERS = "ACEFHJKMNPRTUVWXYacdefhjkmnprtuvwx"


def evaluate_sets(
    predictor: Predictor,  # of the ten digits
    show: Callable[[str], None] = print,  # what is done with each line
) -> None:
    "Print a table over all sets, with the accuracy as they come and through MNIST's form. Raises: `BadData`."
    if predictor.vocab != list("0123456789"):
        raise BadData(f"the sets are of the ten digits; this network knows {', '.join(predictor.vocab)}")
    show(f"{'set':46} {'n':>6}  {'as it comes':>11}  {'read':>8}  {'right, sure':>11}  {'wrong, sure':>11}  "
         f"{'refused':>8}")
    test = digits_path() / "testing"
    files = sorted(test.glob("*/*.png"))
    mnist = answer_pictures(predictor, files, [int(f.parent.name) for f in files])
    _show(show, "MNIST, test images", mnist, predictor)
    small, labels = load_digits(return_X_y=True)
    small = (small.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    _show(show, "optdigits (8×8, other writers)", answer_pictures(predictor, small, labels), predictor)
    fonts = find_fonts()
    if missing := sorted({FONTS[name] for name in FONTS if name not in fonts}):
        show(f"{'':2}not installed, and left out: {', '.join(missing)}")
    if fonts:
        drawn = list(font_digits(fonts.values()))
        answers = answer_pictures(predictor, [picture for picture, _ in drawn], [label for _, label in drawn])
        _show(show, f"{len(fonts)} handwriting fonts", answers, predictor)
    images = np.stack([np.asarray(Image.open(f)) for f in files])
    rng = np.random.default_rng(SEED)
    chosen = rng.permutation(len(images))[:PHOTOS]
    photos = [synthetic_photo(images[i:i + 1], rng).image for i in chosen]
    _show(show, "synthetic photos of one digit", answer_pictures(predictor, photos, mnist.labels[chosen]), predictor)
    _show_rows(show, predictor, images, mnist.labels, rng)
    _show_pages(show, predictor, images, mnist.labels, np.random.default_rng(SEED))
    _show_refused(show, predictor, fonts, rng)
    _show_trust(show, mnist)


def _show(show: Callable[[str], None], name: str, answers: Answers, predictor: Predictor) -> None:
    as_is, read = (((c[:, :-1].argmax(1) == answers.labels) & is_found(c)).mean()
                   for c in (answers.as_is, answers.chances))
    sure = sure_answers(answers.chances, answers.labels, predictor.threshold)
    show(f"{name:46} {len(answers.labels):6,}  {as_is:11.2%}  {read:8.2%}  {sure.right:11.2%}  {sure.wrong:11.2%}  "
         f"{sure.refused:8.2%}")


def _show_rows(show, predictor: Predictor, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> None:
    digits = wrong = whole = 0
    for _ in range(PHOTOS // 2):
        chosen = rng.permutation(len(images))[:rng.integers(2, 11)]
        reading = read_digits(synthetic_photo(images[chosen], rng).image, predictor)
        text = "".join(digit.guess for line in reading.lines for digit in line)
        truth = "".join(map(str, labels[chosen]))
        digits, wrong, whole = digits + len(truth), wrong + edit_distance(text, truth), whole + (text == truth)
    show(f"{'synthetic photos of rows of 2 to 10, digits':46} {digits:6,}  {'':11}  {1 - wrong / digits:8.2%}")
    show(f"{'  rows that are right as a whole':46} {PHOTOS // 2:6,}  {'':11}  {whole / (PHOTOS // 2):8.2%}")


def _show_pages(show, predictor: Predictor, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> None:
    digits = wrong = lines = whole = 0
    for _ in range(PAGES):
        chosen = rng.permutation(len(images))[:rng.integers(10, 61)]
        page = synthetic_page(images[chosen], rng)
        reading = read_digits(page.image, predictor)
        texts = ["".join(digit.guess for digit in line) for line in reading.lines]
        truths = ["".join(map(str, line)) for line in np.split(labels[chosen], np.cumsum(page.lengths)[:-1])]
        digits, wrong = digits + len(chosen), wrong + edit_distance("".join(texts), "".join(truths))
        lines, whole = lines + len(truths), whole + sum(text in texts for text in truths)
    show(f"{'synthetic photos of pages, digits':46} {digits:6,}  {'':11}  {1 - wrong / digits:8.2%}")
    show(f"{'  lines that are right as a whole':46} {lines:6,}  {'':11}  {whole / lines:8.2%}")


def _show_refused(show, predictor: Predictor, fonts: dict[str, Path], rng: np.random.Generator) -> None:
    "How many pictures without a digit are refused."
    sets = {"empty pages": [_page(rng) for _ in range(200)], "scribbles": [_scribble(rng) for _ in range(200)]}
    if fonts:
        sets["letters of the handwriting fonts"] = [picture for picture, _ in font_digits(fonts.values(), LETTERS)]
    for name, pictures in sets.items():
        answers = answer_pictures(predictor, pictures, [0] * len(pictures))
        sure = sure_answers(answers.chances, answers.labels, predictor.threshold)
        show(f"{'no digit: ' + name:46} {len(pictures):6,}  {'':11}  {'':8}  {'':11}  {sure.right + sure.wrong:11.2%}  "
             f"{sure.refused:8.2%}")


def _show_trust(show, mnist: Answers) -> None:
    "How far the probabilities for MNIST's test images can be believed."
    error, covered = (measure(mnist.chances, mnist.labels) for measure in (expected_calibration_error,
                                                                           accuracy_over_coverage))
    show(f"expected calibration error on MNIST's test images: {error:.2%}")
    show("accuracy among the surest: " + ", ".join(f"{a:.2%} of {part:.0%}" for part, a in covered.items()))


def find_fonts() -> dict[str, Path]:
    "The files of the handwriting fonts that are installed, by name."
    found: dict[str, Path] = {}
    for folder in FONT_FOLDERS:
        found |= {f.name: f for f in sorted(Path(folder).expanduser().rglob("*.[ot]tf")) if f.name in FONTS}
    return {name: found[name] for name in FONTS if name in found}


def font_digits(
    fonts: Sequence[Path],
    characters: str = "0123456789",
) -> Iterator[tuple[Image.Image, int]]:  # mode "L", black on white; index of the character
    "Each character of each font, in three sizes, small and off the centre of a page of 400×300 pixels."
    for font in fonts:
        for size, place in ((60, (40, 30)), (110, (180, 90)), (200, (120, 20))):
            face = ImageFont.truetype(font, size)
            for i, character in enumerate(characters):
                page = Image.new("L", (400, 300), 255)
                ImageDraw.Draw(page).text(place, character, fill=20, font=face)
                yield page, i


def edit_distance(
    one: str,
    other: str,
) -> int:
    "How many characters have to be put in, left out or changed to make one text the other (Levenshtein)."
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


def _page(rng: np.random.Generator) -> np.ndarray:
    "A page without writing: even or in uneven light, with more or less grain."
    y, x = np.mgrid[0:300, 0:400] / 300
    light = 230 - rng.uniform(0, 90) * (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1))
    return np.clip(light + rng.normal(0, rng.uniform(0, 12), light.shape), 0, 255).astype(np.uint8)


def _scribble(rng: np.random.Generator) -> Image.Image:
    "A line that a pen has drawn to and fro, crossing itself."
    page = Image.new("L", (300, 300), 245)
    points = np.cumsum(rng.normal(0, 1, (rng.integers(12, 40), 2)), axis=0)
    points = (points - points.min(0)) / np.ptp(points, axis=0) * rng.uniform(80, 220, 2) + 35
    ImageDraw.Draw(page).line([tuple(p) for p in points], fill=30, width=int(rng.integers(3, 9)), joint="curve")
    return page
