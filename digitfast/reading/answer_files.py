"""Answers of `predict_pictures` and `read_pictures` as CSV files."""
import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from digitfast.errors import BadData, BadSetting
from digitfast.files import whole_file

BOX = ("left", "top", "right", "bottom")  # in pixels of the picture


def check_csv(
    path: str | Path,  # of the .csv to write
) -> None:
    "Raise `BadSetting` unless it is a new .csv in an existing folder."
    path = Path(path)
    if path.suffix.lower() != ".csv" or not path.absolute().parent.is_dir():
        raise BadSetting("answers must be written to a .csv in an existing folder, "
                         f"not {str(path)!r}")
    if path.exists():
        raise BadSetting(f"{path} exists; choose another name")


def write_digits(
    answers: Iterable[dict],  # of `predict_pictures`
    path: str | Path,  # of the .csv to write
) -> None:
    "Write a row per picture. Raises: `BadSetting`."
    columns = ("file", "answer", "digit", "guess", "probability", "no_digit", *BOX, "error")
    _write(path, columns, ({**answer, **_box(answer)} for answer in answers))


def write_numbers(
    answers: Iterable[dict],  # of `read_pictures`
    path: str | Path,  # of the .csv to write
) -> None:
    "Write a row per line of digits, with the lowest of their probabilities. Raises: `BadSetting`."
    _write(path, ("file", "line", "text", "probability", *BOX, "error"), _lines(answers))


def write_submission(
    answers: Iterable[dict],  # of `predict_pictures`
    path: str | Path,  # of the .csv to write
) -> None:
    """Write the likeliest class of each picture as Kaggle's Digit Recognizer takes it.

    Raises: `BadData` for a picture without one, `BadSetting`.
    """
    rows = []
    for i, answer in enumerate(answers, 1):
        if "guess" not in answer:
            problem = answer.get("error") or f"{answer['file']} shows no digit"
            raise BadData(f"there is no submission without an answer to each image: {problem}")
        rows.append({"ImageId": i, "Label": answer["guess"]})
    _write(path, ("ImageId", "Label"), rows)


def _lines(answers: Iterable[dict]) -> Iterator[dict[str, Any]]:
    for answer in answers:
        if not answer.get("lines"):
            yield answer
            continue
        for i, (digits, text) in enumerate(
                zip(answer["lines"], answer["text"].split("\n"), strict=True), 1):
            boxes = list(zip(*(digit["box"] for digit in digits), strict=True))
            box = [*map(min, boxes[:2]), *map(max, boxes[2:])]
            yield {"file": answer["file"], "line": i, "text": text,
                   "probability": min(digit["probability"] for digit in digits),
                   **_box({"box": box})}


def _box(answer: dict) -> dict[str, int]:
    return dict(zip(BOX, answer.get("box", ()), strict=False))


def _write(path: str | Path, columns: Sequence[str], rows: Iterable[dict]) -> None:
    check_csv(path)
    with (whole_file(Path(path)) as part,
          open(part, "w", newline="", encoding="utf-8", errors="surrogateescape") as file):
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({key: f"{value:.4f}" if isinstance(value, float) else value
                          for key, value in row.items()} for row in rows)
