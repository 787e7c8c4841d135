"""Check what a model file says of its network, field by field, without torch."""
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from digitfast.errors import BadData

FORMAT = "digitfast 2"
NORMALISATION = {"divide_by": 255}  # from bytes to what a network takes: 0 = paper to 1 = ink
MOST_CLASSES = 1000  # of a network; a file that claims more could fill the memory


def check_header(
    header: Any,  # what a file holds under "digitfast"
    path: object,  # of the file, for messages
) -> dict[str, Any]:
    """Return `header` if it has all its fields, each with a valid value.

    Raises: `BadData`, which names the field.
    """
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else header
        raise BadData(f"{path} has the format {_shorten(found)}, which must be {FORMAT!r}; "
                      "export the network again")
    _check_fields(header, FIELDS, FIELDS, "", path)
    _check_fields(header["facts"], FACTS, ("versions",), "facts.", path)
    return header


def _check_fields(
    values: dict[str, Any],
    fields: dict[str, tuple],  # as in `FIELDS`
    needed: Iterable[str],  # names of fields
    prefix: str,  # of the names, in messages
    path: object,  # of the file, for messages
) -> None:
    if unknown := [name for name in values if name not in fields]:
        field = f"{prefix}{_shorten(unknown[0])}"
        raise BadData(f"{path} has a header with the unknown field {field}")
    if missing := [name for name in needed if name not in values]:
        allowed = fields[missing[0]][1]
        raise BadData(f"{path} has a header without {prefix}{missing[0]}; it must have {allowed}")
    for name, value in values.items():
        is_valid, allowed = fields[name]
        if not is_valid(value):
            field = f"{prefix}{name} = {_shorten(value)}"
            raise BadData(f"{path} has a header with {field}; it must be {allowed}")


def _shorten(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        text = "a number that is far too large"
    return text if len(text) <= 80 else text[:80] + "…"


def _is_number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda v: type(v) in (int, float) and low <= v <= high and math.isfinite(v)


def _is_whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda v: type(v) is int and low <= v <= high


def _is_none_or(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda v: v is None or is_valid(v)


def _is_text(pattern: str) -> Callable[[Any], bool]:
    compiled = re.compile(pattern, re.ASCII | re.DOTALL)
    return lambda v: isinstance(v, str) and compiled.fullmatch(v) is not None


def _is_table(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, dict) and len(v) <= 100 and all(map(is_valid, v.values()))


def _are_classes(value: Any) -> bool:
    return (isinstance(value, list) and 1 <= len(value) <= MOST_CLASSES
            and all(isinstance(label, str) and 0 < len(label) <= 255 for label in value)
            and len(set(value)) == len(value))


def _are_versions(value: Any) -> bool:
    are_texts = _is_table(_is_text(r"[\x20-\x7e]{1,40}"))
    return are_texts(value) and {"digitfast", "torch"} <= value.keys()


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number(0, 1), value))


def _is_plain(value: Any) -> bool:
    return (value is None or type(value) in (bool, int)
            or type(value) is float and math.isfinite(value)
            or isinstance(value, str) and len(value) <= 4096)


#: Each field: the check of its value, and what it must be in words.
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "format": (_is_text(re.escape(FORMAT)), repr(FORMAT)),
    "arch": (_is_text(r"[A-Za-z0-9_.]{1,80}"), "the name of an architecture"),
    "vocab": (_are_classes, f"a list of 1 to {MOST_CLASSES:,} different class names"),
    # More pixels could fill the memory.
    "size": (_is_whole(1, 1024), "the side of the images, 1 to 1024 pixels,"),
    # Digits in MNIST's form, or whole pictures.
    "form": (_is_text("mnist|as it comes"), "'mnist' or 'as it comes'"),
    "normalisation": (lambda v: v == NORMALISATION, repr(NORMALISATION)),
    "no_digit": (lambda v: type(v) is bool, "true or false"),
    "temperature": (_is_number(1e-3, 1e3), "a number from 0.001 to 1,000"),
    "threshold": (_is_number(0, 1), "a number from 0 to 1"),
    "facts": (lambda v: isinstance(v, dict), "a table"),
}
#: What is known about the training: the versions always, the rest where it is known.
FACTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "versions": (_are_versions, "the versions of digitfast and torch"),
    "run": (_is_text(r"[^\0]{1,255}"), "a name"),
    "accuracy": (_is_none_or(_is_number(0, 1)), "a number from 0 to 1"),
    "accuracy_interval_95": (_is_interval, "two numbers from 0 to 1"),
    "validation_images": (_is_whole(0, 2**53), "a whole number"),
    "validated_on": (_is_text(r".{1,80}"), "a text of 1 to 80 characters"),
    "parameters": (_is_whole(0, 2**53), "a whole number"),
    "settings": (_is_table(_is_plain), "a table of texts and numbers"),
    "calibration": (_is_table(_is_number(0, 1e3)), "a table of numbers"),
    "data_sha256": (_is_none_or(_is_text(r"[0-9a-f]{64}")), "64 hexadecimal digits"),
}
