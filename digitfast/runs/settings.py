"""Named runs: sections of a settings.ini, whose keys are the fields of `Recipe`."""
import configparser
import types
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from digitfast.errors import BadSetting, DataNotFound
from digitfast.files import PACKED, whole_file
from digitfast.registry import unknown
from digitfast.training.recipe import Recipe

FILE = "settings.ini"
PACKED_SETTINGS = PACKED / FILE  # the bundled named runs


def named_runs(
    path: str | Path | None = None,  # a settings.ini; None: ./settings.ini over the bundled one
) -> dict[str, dict[str, str]]:
    "Return every named run and its settings as text, without defaults."
    if path is not None:
        if not Path(path).is_file():
            raise DataNotFound(
                f"{path} is not a file; --settings must name a {FILE}, such as runs/NAME/{FILE}")
        return _read(Path(path))
    here = Path(FILE)
    return {**_read(PACKED_SETTINGS), **(_read(here) if here.is_file() else {})}


def read_settings(
    run: str | None = None,  # name of the section; None: the only section
    path: str | Path | None = None,  # as for `named_runs`
) -> dict[str, Any]:
    """Return the fields of `Recipe` that a named run sets, each converted to its type.

    Raises: `UnknownName` for an unknown run or key; `BadSetting` for a value of the wrong type.
    """
    runs = named_runs(path)
    if run is None:
        if len(runs) != 1:
            raise BadSetting(f"{path} has the runs {', '.join(runs)}: choose one with --run")
        run = next(iter(runs))
    if run not in runs:
        where = path or f"./{FILE} and of digitfast itself"
        raise unknown("run", run, runs, f" Runs are the sections of {where}.")
    where = f"[{run}] of {path or FILE}"
    return {key: _convert(key, text, where) for key, text in runs[run].items()}


def write_settings(
    path: str | Path,  # file to write
    run: str,  # name of the section
    values: dict[str, Any],  # settings; None is written as an empty value
) -> None:
    "Write one named run; `read_settings` reads back the same values."
    config = _parser()
    config[run] = {key: "" if value is None else str(value) for key, value in values.items()}
    with (whole_file(Path(path)) as part,
          open(part, "w", encoding="utf-8", errors="surrogateescape") as file):
        config.write(file)


def _convert(key: str, text: str, where: str) -> Any:
    "Return the value of setting `key` that is written as `text`."
    types_of = {setting.name: setting.type for setting in fields(Recipe)}
    if key not in types_of:
        raise unknown(f"setting in {where}", key, types_of)
    kinds = get_args(types_of[key]) or (types_of[key],)  # both of `float | None`
    if text == "" and types.NoneType in kinds:
        return None
    for kind in kinds:
        try:
            if kind is not types.NoneType:
                return kind(text)
        except ValueError:
            continue
    names = " or ".join(kind.__name__ for kind in kinds if kind is not types.NoneType)
    raise BadSetting(f"{key} in {where} must be of type {names}, not {text!r}")


def _parser() -> configparser.ConfigParser:
    return configparser.ConfigParser(interpolation=None, default_section="")


def _read(path: Path) -> dict[str, dict[str, str]]:
    parser = _parser()
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        parser.read_string(text, source=str(path))
    except configparser.Error as e:
        raise BadSetting(f"{path} is not a settings file: {' '.join(str(e).split())}") from e
    return {name: dict(parser[name]) for name in parser.sections()}
