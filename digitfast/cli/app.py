"""The command line as a whole: its commands in their order, and how a mistake ends."""
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Annotated

import typer

from digitfast import __version__
from digitfast.cli.network_commands import draw, evaluate, export, predict, read, report
from digitfast.cli.options import complain
from digitfast.cli.training_commands import bench, data, fit, lr_find, runs
from digitfast.errors import BadSetting, DigitError, ProcessEnded
from digitfast.training.cpu_threads import look_on
from digitfast.training.processes import process_count, process_rank

app = typer.Typer(
    name="digitfast", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a folder of digit pictures to a classifier you can trust, in seconds. "
         "Start with: digitfast fit")
_UsageError = typer.BadParameter.__base__  # typer brings a click of its own: its errors have no other public name
_ClickError = _UsageError.__base__


def _telling(command: Callable) -> Callable:
    "`command`, which says when Ctrl-C ends it what is left: typer would end it without a word."
    @wraps(command)
    def told(*args, **kwargs):
        if process_count() > 1 and command is not fit:
            name = command.__name__.replace("_", "-")
            raise BadSetting(f"{process_count()} processes would all do the same; start it alone: digitfast {name}")
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt as e:
            complain(f"interrupted; {_next_step(e) or 'nothing unfinished was kept'}")
            raise typer.Exit(130) from e
    return told


for command in (fit, lr_find, evaluate, report, predict, read, draw, export, data, runs, bench):
    app.command()(_telling(command))


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False):
    if version:
        print(f"digitfast {__version__}")
        raise typer.Exit


def main() -> None:
    "Run the command line. Mistakes are one line on stderr: exit code 1, 2 for the command's own words, 130 for Ctrl-C."
    look_on()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a file name need not be text that it can take
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
        by = min(process_rank(), 1) if isinstance(e, ProcessEnded) else 0  # where the first one may be what has ended
        complain("; ".join(filter(None, [str(e), _next_step(e)])), by)
        code = 1
    sys.exit(code)


def _next_step(error: BaseException) -> str:
    "What can be done after `error`, where whoever raised it has noted that."
    return "; ".join(getattr(error, "__notes__", []))
