"""Options shared by several commands, and error reporting."""
import inspect
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from digitfast.training.processes import process_rank
from digitfast.training.recipe import Recipe

NETWORK = ("name or folder of a run, a .safetensors, an .onnx (which answers soonest) or, with --trust, a .pkl. "
           "Default: the network that comes with digitfast.")
Network = Annotated[str | None, typer.Argument(metavar="[RUN|FILE]", help=NETWORK.replace("name", "Name", 1))]
Images = Annotated[list[str], typer.Argument(
    metavar="[RUN|FILE] IMAGE...", help="Photos, scans, drawings; a folder stands for all pictures in it. Before them "
                                        "may stand a network: " + NETWORK)]
AsJson = Annotated[bool, typer.Option("--json", help="A JSON list, one entry a picture, with probabilities and boxes.")]
Ink = Annotated[str, typer.Option(help="dark or light, against its paper; auto: whichever the picture shows; "
                                         "drawing: all that is not paper, as in a picture from a drawing program.")]
Steps = Annotated[Path | None, typer.Option(help="PNG to draw the way from the picture to what the network saw into.")]
Trust = Annotated[bool, typer.Option("--trust", help="Open a .pkl, though it can run any code: you know who made it. "
                                     "Other files cannot.")]
RunsFolder = Annotated[str, typer.Option("--runs", help="Folder of the run folders.")]


def setting_options(
    *names: str,  # of fields of `Recipe`; none: all
) -> Callable[[Callable], Callable]:
    "Give a command, which takes `**given`, an option for each of these settings. One that is not typed is None."
    def with_options(command: Callable) -> Callable:
        own = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
        options = [inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None,
                                     annotation=Annotated[setting.type | None, typer.Option(help=_help(setting))])
                   for setting in fields(Recipe) if not names or setting.name in names]
        command.__signature__ = inspect.Signature([*options, *(p.replace(kind=p.KEYWORD_ONLY) for p in own)])
        command.__annotations__ = {p.name: p.annotation for p in command.__signature__.parameters.values()}
        return command
    return with_options


def _help(setting) -> str:
    default = "" if setting.default is None else f" Default: {setting.default}."
    return setting.metadata["help"] + default


def complain(
    message: object,  # which becomes one line
    by: int = 0,  # which one of several processes that meet the mistake says so
) -> None:
    "Print a mistake on stderr."
    if process_rank() == by:
        print("digitfast: " + " ".join(str(message).split()), file=sys.stderr, flush=True)
