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
PACKED_SETTINGS = PACKED / FILE  # the named runs that come with digitfast


def named_runs(
    path: str | Path | None = None,  # a settings.ini; None: the one of the current folder, if any, over digitfast's own
) -> dict[str, dict[str, str]]:
    "Every named run and its settings as they are written, without defaults."
    if path is not None:
        if not Path(path).is_file():
            raise DataNotFound(f"{path} is no file; --settings wants a {FILE}, such as runs/NAME/{FILE}")
        return _read(Path(path))
    here = Path(FILE)
    return {**_read(PACKED_SETTINGS), **(_read(here) if here.is_file() else {})}


def read_settings(
    run: str | None = None,  # name of the section; None: the only one
    path: str | Path | None = None,  # as for `named_runs`
) -> dict[str, Any]:
    """The fields of `Recipe` that a named run sets, each converted to its type.

    Raises: `UnknownName` for an unknown run, `BadSetting` for an unknown key or a value of another type.
    """
    runs = named_runs(path)
    if run is None:
        if len(runs) != 1:
            raise BadSetting(f"{path} has the runs {', '.join(runs)}: choose one with --run")
        run = next(iter(runs))
    if run not in runs:
        raise unknown("run", run, runs, f" Runs are the sections of {path or f'./{FILE} and of digitfast itself'}.")
    return {key: _convert(key, text, f"[{run}] of {path or FILE}") for key, text in runs[run].items()}


def write_settings(
    path: str | Path,  # file to write
    run: str,  # name of the section
    values: dict[str, Any],  # settings; None is written as an empty value
) -> None:
    "Write one named run, so that `read_settings` gives `values` again."
    config = _parser()
    config[run] = {key: "" if value is None else str(value) for key, value in values.items()}
    with whole_file(Path(path)) as part, open(part, "w", encoding="utf-8", errors="surrogateescape") as file:
        config.write(file)


def _convert(key: str, text: str, where: str) -> Any:
    "The value of setting `key` that is written as `text`."
    types_of = {setting.name: setting.type for setting in fields(Recipe)}
    if key not in types_of:
        raise unknown(f"setting in {where}", key, types_of)
    kinds = get_args(types_of[key]) or (types_of[key],)  # of `float | None` both
    if text == "" and types.NoneType in kinds:
        return None
    for kind in kinds:
        try:
            if kind is not types.NoneType:
                return kind(text)
        except ValueError:
            continue
    names = " or ".join(kind.__name__ for kind in kinds if kind is not types.NoneType)
    raise BadSetting(f"{key} = {text!r} in {where}: it must be of type {names}")


def _parser() -> configparser.ConfigParser:
    return configparser.ConfigParser(interpolation=None, default_section="")


def _read(path: Path) -> dict[str, dict[str, str]]:
    parser = _parser()
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig", errors="surrogateescape"), source=str(path))
    except configparser.Error as e:
        raise BadSetting(f"{path} is no settings file: {' '.join(str(e).split())}") from e
    return {name: dict(parser[name]) for name in parser.sections()}
