"""What a model file says of its network, each field checked. No need of torch."""
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from digitfast.errors import BadData

FORMAT = "digitfast 2"
FORMS = ("mnist", "as it comes")  # of the images: digits in MNIST's form, or whole pictures
NORMALISATION = {"divide_by": 255}  # what is done to the bytes of an image: a network sees 0 = paper to 1 = ink
LARGEST, MOST_CLASSES = 1024, 1000  # pixels of a side; what is beyond is no file of ours, but takes up much memory


def check_header(
    header: Any,  # what a file holds under "digitfast"
    path: object,  # of the file, for the message
) -> dict[str, Any]:
    "`header`, when each of its fields is there and is one that can be. Raises: `BadData`, which names the field."
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else header
        raise BadData(f"{path} has the format {_short(found)}, which must be {FORMAT!r}; export the network again")
    _check(header, FIELDS, FIELDS, "", path)
    _check(header["facts"], FACTS, ("versions",), "facts.", path)
    return header


def _check(values: dict[str, Any], fields: dict[str, tuple], needed: Iterable[str], prefix: str, path: object) -> None:
    if strange := [name for name in values if name not in fields]:
        raise BadData(f"{path} has a header with the unknown field {prefix}{_short(strange[0])}")
    if missing := [name for name in needed if name not in values]:
        raise BadData(f"{path} has a header without {prefix}{missing[0]}; it must have {fields[missing[0]][1]}")
    for name, value in values.items():
        good, wanted = fields[name]
        if not good(value):
            raise BadData(f"{path} has a header with {prefix}{name} = {_short(value)}; it must be {wanted}")


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        text = "a number that is far too large"
    return text if len(text) <= 80 else text[:80] + "…"


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda v: type(v) in (int, float) and low <= v <= high and math.isfinite(v)


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda v: type(v) is int and low <= v <= high


def _or_none(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda v: v is None or good(v)


def _text(pattern: str) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, str) and re.fullmatch(pattern, v, re.ASCII | re.DOTALL) is not None


def _table(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, dict) and len(v) <= 100 and all(map(good, v.values()))


def _are_classes(value: Any) -> bool:
    return (isinstance(value, list) and 1 <= len(value) <= MOST_CLASSES
            and all(isinstance(label, str) and 0 < len(label) <= 255 for label in value)
            and len(set(value)) == len(value))


def _is_plain(value: Any) -> bool:
    return (value is None or type(value) in (bool, int) or type(value) is float and math.isfinite(value)
            or isinstance(value, str) and len(value) <= 4096)


_PART = _number(0, 1)
#: Each field, what it may be, and that in words.
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "format": (_text(re.escape(FORMAT)), repr(FORMAT)),
    "arch": (_text(r"[A-Za-z0-9_.]{1,80}"), "the name of an architecture"),
    "vocab": (_are_classes, f"a list of 1 to {MOST_CLASSES:,} different names of classes"),
    "size": (_whole(1, LARGEST), f"the side of the images, 1 to {LARGEST} pixels,"),
    "form": (lambda v: isinstance(v, str) and v in FORMS, " or ".join(map(repr, FORMS))),
    "normalisation": (lambda v: v == NORMALISATION, repr(NORMALISATION)),
    "no_digit": (lambda v: type(v) is bool, "true or false"),
    "temperature": (_number(1e-3, 1e3), "a number from 0.001 to 1,000"),
    "threshold": (_PART, "a number from 0 to 1"),
    "facts": (lambda v: isinstance(v, dict), "a table"),
}
#: What is known of the training besides: the versions always, the others where there are any.
FACTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "versions": (lambda v: _table(_text(r"[\x20-\x7e]{1,40}"))(v) and {"digitfast", "torch"} <= v.keys(),
                 "the versions of digitfast and torch"),
    "run": (_text(r"[^\0]{1,255}"), "a name"),
    "accuracy": (_or_none(_PART), "a number from 0 to 1"),
    "accuracy_interval_95": (lambda v: isinstance(v, list) and len(v) == 2 and all(map(_PART, v)), "two numbers"),
    "validation_images": (_whole(0, 2**53), "a whole number"),
    "validated_on": (_text(r".{1,80}"), "a text"),
    "parameters": (_whole(0, 2**53), "a whole number"),
    "settings": (_table(_is_plain), "a table of texts and numbers"),
    "calibration": (_table(_number(0, 1e3)), "a table of numbers"),
    "data_sha256": (_or_none(_text(r"[0-9a-f]{64}")), "64 hexadecimal digits"),
}
