"""Options shared by several commands, and error reporting."""
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

from digitfast.training.processes import process_rank
from digitfast.training.recipe import Recipe

_NETWORK = ("name or folder of a run, a .safetensors, an .onnx (which answers soonest) or, with "
            "--trust, a .pkl. Default: the bundled network.")
Network = Annotated[str | None, typer.Argument(
    metavar="[RUN|FILE]", help=_NETWORK.replace("name", "Name", 1))]
Images = Annotated[list[str], typer.Argument(
    metavar="[RUN|FILE] IMAGE...",
    help="Photos, scans and drawings, or folders of them. A network may precede them: " + _NETWORK)]
AsJson = Annotated[bool, typer.Option(
    "--json", help="Print a JSON list with an entry per picture: answers, probabilities and "
                   "boxes.")]
Ink = Annotated[str, typer.Option(
    help="dark or light: the ink, against its paper; auto: whichever the picture shows; drawing: "
         "all that is not paper, as in a picture from a drawing program.")]
Steps = Annotated[Path | None, typer.Option(
    help="PNG to write; it shows the steps from the picture to what the network saw.")]
AsCsv = Annotated[Path | None, typer.Option(
    "--csv", help="Write the answers to this new .csv instead of printing them.")]
Device = Annotated[str | None, typer.Option(
    help="Where the network runs: cpu, cuda, cuda:1, mps. Default: the CPU.")]
Trust = Annotated[bool, typer.Option(
    "--trust", help="Open a .pkl, which can run any code: only if you know who made it. Other "
                    "files cannot run code.")]
RunsFolder = Annotated[str, typer.Option("--runs", help="Folder of the run folders.")]


def setting_options(
    *names: str,  # of fields of `Recipe`; none: all
) -> Callable[[Callable], Callable]:
    """Give a command, which takes `**given`, an option for each of these settings.

    An option that is not given is None.
    """
    def with_options(command: Callable) -> Callable:
        parameters = inspect.signature(command).parameters.values()
        own = [p.replace(kind=p.KEYWORD_ONLY) for p in parameters if p.kind is not p.VAR_KEYWORD]
        options = [_option(setting) for setting in fields(Recipe)
                   if not names or setting.name in names]
        command.__signature__ = inspect.Signature([*options, *own])
        command.__annotations__ = {p.name: p.annotation for p in (*options, *own)}
        return command
    return with_options


def _option(setting: Field) -> inspect.Parameter:
    "Return the parameter of a command that sets `setting`, with its default in the help."
    default = "" if setting.default is None else f" Default: {setting.default}."
    names = filter(None, [setting.metadata["option"]])
    option = typer.Option(*names, help=setting.metadata["help"] + default)
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None,
                             annotation=Annotated[setting.type | None, option])


class WithPictures(TyperCommand):
    "A command whose --sets may be followed by a folder of real pictures, or by no value."

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        given = []
        for arg, following in zip(args, [*args[1:], ""], strict=True):
            given.append(arg)
            if arg == "--sets" and not (Path(following) / "truth.tsv").is_file():
                given.append("")
        return super().parse_args(ctx, given)


def watched(
    items: Sequence,
    least: int = 20,  # items that are worth a progress bar
) -> Iterable:
    "Go through `items`, with a progress bar on stderr if somebody watches."
    if len(items) < least or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track
    return track(items, "", console=Console(stderr=True), transient=True)


def complain(
    message: object,  # printed on one line
    by: int = 0,  # rank of the process that prints, if several meet the same error
) -> None:
    "Print an error on stderr."
    if process_rank() == by:
        line = " ".join(str(message).split())
        print(f"digitfast: {line}", file=sys.stderr, flush=True)
