"""Measure how well real pictures are read: a folder of them, and what is written in each."""
import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from digitfast.data.pictures import one_line_name
from digitfast.errors import BadData
from digitfast.evaluation.accuracy import edit_distance
from digitfast.inference.predictor import Predictor
from digitfast.reading.reader import read_digit, read_digits
from digitfast.reading.result import Digit, Reading

#: The file that names the pictures of a folder, and what is written in each.
TRUTH = "truth.tsv"
_COLUMNS = ("set", "kind", "truth", "file")
_SETS = ("single", "multi")


@dataclass(frozen=True, kw_only=True)
class RealPicture:
    "A picture, and what a person sees in it."
    path: Path
    kind: str  # such as "photo" or "drawing"
    truth: str  # the digits, with `/` between lines
    is_single: bool  # whether it shows one digit, which `read_digit` is asked for


def evaluate_real_pictures(
    predictor: Predictor,
    folder: str | Path,  # with a `truth.tsv`, as `real_pictures` reads it
    show: Callable[[str], None] = print,  # called with each line
) -> None:
    """Print how well the pictures of a folder are read: first those of one digit, then the others.

    A single digit is right if the answer is sure and is the digit. Of several digits, the edit
    distance between the reading and the truth counts.
    Raises: `BadData` as `real_pictures`; `BadImage` for a picture that cannot be read.
    """
    pictures = real_pictures(folder)
    singles = [picture for picture in pictures if picture.is_single]
    several = [picture for picture in pictures if not picture.is_single]
    if singles:
        _show_singles(show, predictor, singles)
    if several:
        _show_several(show, predictor, several)


def real_pictures(
    folder: str | Path,
) -> list[RealPicture]:
    """Return the pictures that `truth.tsv` of the folder names.

    Its columns, parted by tabs and named in the first line, are `set` (`single` or `multi`), `kind`
    (a word, by which the table is split), `truth` (the digits, with `/` between lines) and `file`
    (a path within the folder). Other columns are left out.
    Raises: `BadData` if it is missing or has other columns, or for a row that is not like that.
    """
    file = Path(folder) / TRUTH
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        reason = getattr(e, "strerror", None) or e
        raise BadData(f"{one_line_name(file)} cannot be read: {reason}; it must have the columns "
                      f"{', '.join(_COLUMNS)}, parted by tabs") from e
    if not rows:
        raise BadData(f"{one_line_name(file)} names no pictures")
    return [_checked(row, file, number) for number, row in enumerate(rows, 2)]


def _checked(
    row: dict[str | None, str | None],
    file: Path,  # that it stands in
    number: int,  # of its line
) -> RealPicture:
    "Return the picture of a row of `truth.tsv`. Raises: `BadData` if there is something wrong."
    where = f"{one_line_name(file)}, line {number}"
    if missing := [name for name in _COLUMNS if not row.get(name)]:
        raise BadData(f"{where}: the columns {', '.join(_COLUMNS)} must not be empty; "
                      f"{', '.join(missing)} is")
    if row["set"] not in _SETS:
        raise BadData(f"{where}: set must be {' or '.join(_SETS)}, not {row['set']!r}")
    if not row["truth"].replace("/", "").isdecimal() or not row["truth"].isascii():
        raise BadData(f"{where}: truth must be digits, with / between lines, not {row['truth']!r}")
    path = (file.parent / row["file"]).resolve()
    if not path.is_relative_to(file.parent.resolve()):
        raise BadData(f"{where}: file must lie within the folder, not {row['file']!r}")
    return RealPicture(path=path, kind=row["kind"], truth=row["truth"],
                       is_single=row["set"] == "single")


def _groups(pictures: Iterable[RealPicture], results: Iterable) -> Iterator[tuple[str, list]]:
    "Yield the results of all pictures, and of each kind if there are several."
    kinds = defaultdict(list)
    for picture, result in zip(pictures, results, strict=True):
        kinds[picture.kind].append(result)
    yield "all", [result for found in kinds.values() for result in found]
    if len(kinds) > 1:
        yield from kinds.items()


def _show_singles(
    show: Callable[[str], None],
    predictor: Predictor,
    pictures: list[RealPicture],
    claimed: float = 0.95,  # probability from which a wrong answer misleads
) -> None:
    "Show how often the one digit is right, is right as a guess, and is wrong."
    def outcome(picture: RealPicture) -> tuple[bool, bool, bool, bool]:
        digit = read_digit(picture.path, predictor).digit or _NOTHING
        is_wrong = digit.label not in (picture.truth, None)
        return (digit.label == picture.truth, digit.guess == picture.truth, is_wrong,
                is_wrong and digit.probability >= claimed)

    show(f"{'one digit':24} {'n':>6}  {'right':>8}  {'first guess':>11}  {'wrong':>8}  "
         f"{f'wrong, {claimed:.0%} sure':>15}")
    for name, found in _groups(pictures, map(outcome, pictures)):
        right, guessed, wrong, misleading = (sum(column) / len(found)
                                             for column in zip(*found, strict=True))
        show(f"{name:24} {len(found):6,}  {right:8.2%}  {guessed:11.2%}  {wrong:8.2%}  "
             f"{misleading:15.2%}")


_NOTHING = Digit(label=None, guess="", probability=0.0, no_digit=1.0, box=(0, 0, 0, 0), image=None,
                 probabilities={})


def _show_several(
    show: Callable[[str], None],
    predictor: Predictor,
    pictures: list[RealPicture],
) -> None:
    "Show how many digits are right by edit distance, and how many pictures as a whole."
    def outcome(picture: RealPicture) -> tuple[int, int, bool]:
        lines = _lines(read_digits(picture.path, predictor))
        truth = picture.truth.split("/")
        wrong = edit_distance("".join(lines), "".join(truth))
        return len("".join(truth)), wrong, lines == truth

    show(f"{'several digits':24} {'n':>6}  {'digits':>8}  {'right':>11}  pictures that are right")
    for name, found in _groups(pictures, map(outcome, pictures)):
        digits, wrong, whole = (sum(column) for column in zip(*found, strict=True))
        show(f"{name:24} {len(found):6,}  {digits:8,}  {1 - wrong / digits:11.2%}  "
             f"{whole / len(found):23.2%}")


def _lines(reading: Reading) -> list[str]:
    "Return the digits of each line, with `?` for a mark that may be one."
    lines = ["".join(c for c in line if c in "0123456789?") for line in reading.text.split("\n")]
    return [line for line in lines if line]
