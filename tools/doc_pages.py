"""docs/api.md and docs/commands.md from the docstrings and the options' help: `make docs`.

Signatures stand there as they stand in the source, comments and all.
"""
import ast
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from inspect import formatannotation
from pathlib import Path

import typer

import digitfast
from digitfast.cli.app import app

DOCS = Path(__file__).parent.parent / "docs"
API = """# The Python API

`from digitfast import NAME` for each name below, but for those that come with a result (they are marked so). The
comment behind a parameter says what it means, in which unit or range. In a notebook, `NAME?` shows the same. This page
is made from the docstrings by `make docs`.
"""
COMMANDS = """# The commands

What `digitfast COMMAND --help` says, made by `make docs`.
"""


def api_page() -> str:
    "The page as Markdown: a section for each public name, by modules, in the order of `digitfast.__all__`."
    public = [getattr(digitfast, name) for name in digitfast.__all__ if name != "__version__"]
    parts, module, shown = [API], None, set(public)
    for thing in public:
        if thing.__module__ != module:
            module = thing.__module__
            parts.append(f"## {module}\n\n{first_line(inspect.getmodule(thing))}\n")
        parts.append(section(thing))
        for result in results(thing):
            if result not in shown:
                shown.add(result)
                parts.append(section(result, " (a result)"))
    return "\n".join(parts)


def section(thing, mark: str = "") -> str:
    "A function or a class: its signature, its docstring, and what can be called or read of an object."
    parts = [f"### {thing.__name__}{mark}", signature(thing), inspect.getdoc(thing), members(thing)]
    return "\n\n".join(filter(None, parts)) + "\n"


def signature(thing) -> str:
    "How `thing` is called, or the fields that it has, as the source says it; nothing for an error."
    lines = textwrap.dedent(inspect.getsource(thing)).splitlines()
    node = ast.parse("\n".join(lines)).body[0]
    if isinstance(node, ast.FunctionDef):
        shown = lines[node.lineno - 1:node.body[0].lineno - 1]
    elif is_dataclass(thing) and "help" in fields(thing)[0].metadata:
        shown = [lines[node.lineno - 1], *(f"    {field.name}: {formatannotation(field.type)} = {field.default!r}"
                                           for field in fields(thing))]
    elif annotated := [part for part in node.body if isinstance(part, ast.AnnAssign)]:
        shown = [lines[node.lineno - 1], *lines[annotated[0].lineno - 1:annotated[-1].end_lineno]]
    elif inits := [part for part in node.body if getattr(part, "name", "") == "__init__"]:
        begin = lines[inits[0].lineno - 1:inits[0].body[0].lineno - 1]
        shown = [line.removeprefix("    ") for line in begin]
        shown[0] = shown[0].replace("def __init__(", f"{thing.__name__}(").replace("self, ", "").rstrip(":")
        shown = [line for line in shown if line.strip() != "self,"]
        shown[-1] = shown[-1].rstrip(":")
    else:
        return ""
    return "\n".join(["```python", *shown, "```"])


def members(thing) -> str:
    "A line for each documented method and property of a class."
    lines = [f"- `{field.name}`: {field.metadata['help']}" for field in (fields(thing) if is_dataclass(thing) else ())
             if "help" in field.metadata]
    for name, member in vars(thing).items() if isinstance(thing, type) else ():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if inspect.isfunction(function) and function.__doc__ and not name.startswith("_"):
            arguments = "" if isinstance(member, property) else str(inspect.signature(function)).split(" ->")[0]
            lines.append(f"- `.{name}{re.sub(r'^[(](self|cls)(, )?', '(', arguments)}`: {first_line(function)}")
    return "\n".join(lines)


def results(thing) -> Iterator[type]:
    "digitfast's own classes among what a function gives or a class holds, and what those hold."
    hints = typing.get_type_hints(thing)
    for hint in hints.values() if isinstance(thing, type) else [hints.get("return")]:
        for part in (hint, *typing.get_args(hint), *(x for arg in typing.get_args(hint) for x in typing.get_args(arg))):
            if isinstance(part, type) and part.__module__.startswith("digitfast.") and part is not thing:
                yield part
                yield from results(part)


def commands_page() -> str:
    "The page as Markdown: a section for each command, with its arguments and options."
    commands = typer.main.get_command(app).commands
    return "\n".join([COMMANDS, *(command_section(name, command) for name, command in commands.items())])


def command_section(name: str, command) -> str:
    "What a command does, how it is called, and a row for each argument and option."
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    called = " ".join(["digitfast", name, *map(typed, arguments), *["[OPTIONS]"] * bool(options)])
    rows = [f"| `{typed(param)}` | {param.help}{default(param)} |".replace("[RUN|", "[RUN\\|")
            for param in (*arguments, *options)]
    return "\n".join([f"## {name}", "", command.help, "", f"`{called}`", "", "| | |", "| --- | --- |", *rows, ""])


def typed(param) -> str:
    "What one types for an argument or an option."
    if param.param_type_name == "argument":
        return param.metavar or param.name.upper()
    return ", ".join([*param.opts, *param.secondary_opts])


def default(param) -> str:
    "The default of an option, where its help does not say it."
    said = param.default in (None, False, "", 0) or "Default:" in param.help
    return "" if said or param.secondary_opts else f" Default: {param.default}."


PAGES = {DOCS / "api.md": api_page, DOCS / "commands.md": commands_page}


def first_line(thing) -> str:
    return inspect.getdoc(thing).split("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")
        print(path)
