"""Write docs/api.md and docs/commands.md from the docstrings and the options' help: `make docs`.

Signatures are copied from the source, with their comments.
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

`from digitfast import NAME` for each name below, except those marked as results. The comment after
a parameter gives its meaning and its unit or range. In a notebook, `NAME?` shows the same. This
page is made from the docstrings by `make docs`.
"""
COMMANDS = """# The commands

The output of `digitfast COMMAND --help`, made by `make docs`.
"""


def api_page() -> str:
    """Return the API page as Markdown.

    It has a section per public name, by module, in the order of `digitfast.__all__`.
    """
    public = [getattr(digitfast, name) for name in digitfast.__all__ if name != "__version__"]
    parts = [API]
    module = None
    documented = set(public)
    for thing in public:
        if thing.__module__ != module:
            module = thing.__module__
            parts.append(f"## {module}\n\n{first_line(inspect.getmodule(thing))}\n")
        parts.append(section(thing))
        for result in results(thing):
            if result not in documented:
                documented.add(result)
                parts.append(section(result, " (a result)"))
    return "\n".join(parts)


def section(thing, mark: str = "") -> str:
    "Return the section of a function or class: signature, docstring, methods and properties."
    parts = [f"### {thing.__name__}{mark}", signature(thing), inspect.getdoc(thing), members(thing)]
    return "\n\n".join(filter(None, parts)) + "\n"


def signature(thing) -> str:
    "Return how the source calls `thing`, or a class's fields; nothing for an error."
    lines = textwrap.dedent(inspect.getsource(thing)).splitlines()
    node = ast.parse("\n".join(lines)).body[0]
    if isinstance(node, ast.FunctionDef):
        copied = lines[node.lineno - 1:node.body[0].lineno - 1]
    elif is_dataclass(thing) and "help" in fields(thing)[0].metadata:
        copied = [lines[node.lineno - 1]]
        for field in fields(thing):
            copied.append(f"    {field.name}: {formatannotation(field.type)} = {field.default!r}")
    elif annotated := [part for part in node.body if isinstance(part, ast.AnnAssign)]:
        first, last = annotated[0].lineno, annotated[-1].end_lineno
        copied = [lines[node.lineno - 1], *lines[first - 1:last]]
    elif inits := [part for part in node.body if getattr(part, "name", "") == "__init__"]:
        begin = lines[inits[0].lineno - 1:inits[0].body[0].lineno - 1]
        copied = [line.removeprefix("    ") for line in begin]
        call = copied[0].replace("def __init__(", f"{thing.__name__}(").replace("self, ", "")
        copied[0] = call.rstrip(":")
        copied = [line for line in copied if line.strip() != "self,"]
        copied[-1] = copied[-1].rstrip(":")
    else:
        return ""
    return "\n".join(["```python", *copied, "```"])


def members(thing) -> str:
    "Return a line per documented method and property of a class."
    if not isinstance(thing, type):
        return ""
    lines = [f"- `{field.name}`: {field.metadata['help']}"
             for field in (fields(thing) if is_dataclass(thing) else ())
             if "help" in field.metadata]
    for name, member in vars(thing).items():
        is_property = isinstance(member, property)
        function = member.fget if is_property else getattr(member, "__func__", member)
        if inspect.isfunction(function) and function.__doc__ and not name.startswith("_"):
            arguments = "" if is_property else str(inspect.signature(function)).split(" ->")[0]
            arguments = re.sub(r"^[(](self|cls)(, )?", "(", arguments)
            lines.append(f"- `.{name}{arguments}`: {first_line(function)}")
    return "\n".join(lines)


def results(thing) -> Iterator[type]:
    "Yield digitfast's classes in a function's result or a class's fields, recursively."
    hints = typing.get_type_hints(thing)
    for hint in hints.values() if isinstance(thing, type) else [hints.get("return")]:
        arguments = typing.get_args(hint)
        inner = [part for argument in arguments for part in typing.get_args(argument)]
        for part in (hint, *arguments, *inner):
            is_own = isinstance(part, type) and part.__module__.startswith("digitfast.")
            if is_own and part is not thing:
                yield part
                yield from results(part)


def commands_page() -> str:
    "Return the commands page as Markdown: a section per command, with arguments and options."
    commands = typer.main.get_command(app).commands
    sections = [command_section(name, command) for name, command in commands.items()]
    return "\n".join([COMMANDS, *sections])


def command_section(name: str, command) -> str:
    "Return a command's section: help, usage, and a row per argument and option."
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    words = ["digitfast", name, *map(typed, arguments)]
    if options:
        words.append("[OPTIONS]")
    rows = [f"| `{typed(param)}` | {param.help}{default(param)} |".replace("[RUN|", "[RUN\\|")
            for param in (*arguments, *options)]
    return "\n".join([f"## {name}", "", command.help, "", f"`{' '.join(words)}`", "",
                      "| | |", "| --- | --- |", *rows, ""])


def typed(param) -> str:
    "Return what a user types for an argument or an option."
    if param.param_type_name == "argument":
        return param.metavar or param.name.upper()
    return ", ".join([*param.opts, *param.secondary_opts])


def default(param) -> str:
    "Return the default of an option, unless its help gives it."
    said = param.default in (None, False, "", 0) or "Default:" in param.help
    return "" if said or param.secondary_opts else f" Default: {param.default}."


PAGES = {DOCS / "api.md": api_page, DOCS / "commands.md": commands_page}


def first_line(thing) -> str:
    "Return the first paragraph of a docstring, on one line."
    return inspect.getdoc(thing).split("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")
        print(path)
