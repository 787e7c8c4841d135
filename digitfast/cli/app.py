"""The command line: its commands in their order, and how errors are reported."""
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Annotated

import typer

from digitfast import __version__
from digitfast.cli.network_commands import draw, evaluate, export, predict, read, report
from digitfast.cli.options import WithPictures, complain
from digitfast.cli.training_commands import bench, data, fit, lr_find, runs
from digitfast.errors import BadSetting, DigitError, ProcessEnded
from digitfast.training.cpu_threads import look_on
from digitfast.training.processes import process_count, process_rank

app = typer.Typer(
    name="digitfast", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From digits in any form to a classifier you can trust, in seconds. "
         "Start with: digitfast fit")
# typer has its own copy of click, whose errors have no other public name
_UsageError = typer.BadParameter.__base__
_ClickError = _UsageError.__base__


def _reporting(command: Callable) -> Callable:
    "Make `command` say on Ctrl-C what is left to resume; typer would end it silently."
    @wraps(command)
    def reported(*args, **kwargs):
        if process_count() > 1 and command is not fit:
            name = command.__name__.replace("_", "-")
            raise BadSetting(f"{process_count()} processes would all do the same; "
                             f"run it without a launcher: digitfast {name}")
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt as e:
            complain(f"interrupted; {_next_step(e) or 'nothing unfinished was kept'}")
            raise typer.Exit(130) from e
    return reported


for command in (fit, lr_find, evaluate, report, predict, read, draw, export, data, runs, bench):
    app.command(cls=WithPictures if command is evaluate else None)(_reporting(command))


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
):
    if version:
        print(f"digitfast {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line.

    An error is one line on stderr. Exit codes: 1 for an error, 2 for a mistyped command or option,
    130 for Ctrl-C.
    """
    look_on()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # for file names beyond its encoding
    for plans_of_a_library in (DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=plans_of_a_library)
    warnings.showwarning = lambda message, *_: complain(message)
    try:
        code = app(prog_name="digitfast", standalone_mode=False) or 0
    except _ClickError as e:
        where = f"; see {e.ctx.command_path} --help" if isinstance(e, _UsageError) and e.ctx else ""
        complain(e.format_message() + where)
        code = e.exit_code
    except (KeyboardInterrupt, typer.Abort):  # before a command began
        code = 130
    except (DigitError, OSError) as e:
        # if a process has ended, that may be the first one
        by = min(process_rank(), 1) if isinstance(e, ProcessEnded) else 0
        complain("; ".join(filter(None, [str(e), _next_step(e)])), by)
        code = 1
    sys.exit(code)


def _next_step(error: BaseException) -> str:
    "Return what can be done after `error`, if its notes say so."
    return "; ".join(getattr(error, "__notes__", []))
