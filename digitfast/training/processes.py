"""Work together with the other processes that a launcher such as `torchrun` has started.

torch is imported inside the functions, so that mistakes in a command are reported without it.
"""
import atexit
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any

from digitfast.errors import BadSetting, DigitError, ProcessEnded


class _Ended(BaseException):
    "Raised by SIGTERM; no library's `except Exception` catches it."


def process_count() -> int:
    "Return how many processes work together: 1 unless a launcher has started more."
    return max(1, _number("WORLD_SIZE", 1))


def process_rank() -> int:
    "Return the rank of this process: 0 is the first, the only one that prints and writes."
    return _number("RANK", 0)


def is_first() -> bool:
    "Return whether this process is the first or the only one, which prints and writes."
    return process_rank() == 0


def launched(
    command: str,  # of digitfast, such as "fit --resume best"
    processes: int | None = None,  # on this machine; None: as many as there are now
) -> str:
    "Return the command line that starts `command` with so many processes."
    processes = processes or _local_count()
    if processes > 1:
        return f"torchrun --nproc_per_node {processes} -m digitfast {command}"
    return f"digitfast {command}"


def check_shares(
    bs: int,  # batch size, over all processes
) -> None:
    "Raise `BadSetting` for a batch that does not give each process an equal share of 2 or more."
    n = process_count()
    if n > 1 and (bs % n or bs < 2 * n):
        below, above = max(2, bs // n) * n, max(2, bs // n + 1) * n
        raise BadSetting(f"bs must divide into {n} equal shares of at least 2 images, one for each "
                         f"process, not {bs}; "
                         f"try bs={' or '.join(map(str, sorted({below, above})))}")


@contextmanager
def joined() -> Iterator[None]:
    """While the context lasts, the processes that were started together can work together.

    They communicate by NCCL if there are GPUs, of which each process takes its own, by gloo on
    CPUs. A user's script should do all of its work in this context, so that its images and networks
    are on the process's own GPU. With only one process, do nothing.

    Raises: `BadSetting` without the package accelerate, with more processes than GPUs, or if the
    launcher leaves out what torch needs; `ProcessEnded` if one of the processes ends.
    """
    if process_count() == 1:
        yield
        return
    with _reported_end():
        _join()
        try:
            yield
        except BaseException as e:
            # all processes raise the same `DigitError`, unless another one has ended
            if isinstance(e, ProcessEnded) or not isinstance(e, DigitError):
                atexit.unregister(_leave)  # it would wait for others that may wait for this one
            raise


def on_first_process(
    func: Callable,  # its result must be picklable
) -> Callable:
    """Make `func` run on the first process only, while the others wait.

    All processes return its result, or raise its error.
    """
    @wraps(func)
    def run(*args, **kwargs):
        if process_count() == 1:
            return func(*args, **kwargs)
        from torch.distributed import broadcast_object_list
        outcome = list(_tried(func, *args, **kwargs)) if is_first() else [None, None]
        broadcast_object_list(outcome)
        result, error = outcome
        if error:
            raise error
        return result
    return run


def first_process_first(
    func: Callable,
) -> Callable:
    """Make `func` run on the first process before the others start.

    The others then find what the first has unpacked and decoded. Each process returns its own
    result. An error on one of them is raised on all.
    """
    @wraps(func)
    def run(*args, **kwargs):
        if process_count() == 1:
            return func(*args, **kwargs)
        from torch.distributed import all_gather_object
        result = error = None
        for turn in (True, False):
            if is_first() == turn:
                result, error = _tried(func, *args, **kwargs)
            errors = [None] * process_count()
            all_gather_object(errors, error)
            if found := next(filter(None, errors), None):
                raise error or found
        return result
    return run


def gathered(
    value: Any,  # must be picklable
) -> list:
    "Return the `value` of every process, in order of rank."
    if process_count() == 1:
        return [value]
    from torch.distributed import all_gather_object
    values = [None] * process_count()
    all_gather_object(values, value)
    return values


def wanted_by_any(
    *wishes: bool,
) -> list[bool]:
    "Return for each wish whether any process has it; all processes get the same answer."
    if process_count() == 1:
        return list(wishes)
    import torch
    from torch import distributed
    wishes = torch.tensor(wishes, dtype=torch.uint8, device="cuda" if on_gpus() else "cpu")
    distributed.all_reduce(wishes, distributed.ReduceOp.MAX)
    return wishes.bool().tolist()


@contextmanager
def alone() -> Iterator[None]:
    "While the context lasts, let fastai treat this process as the only one, and wait for no other."
    count = os.environ.pop("WORLD_SIZE", None)
    try:
        yield
    finally:
        if count is not None:
            os.environ["WORLD_SIZE"] = count


def on_gpus() -> bool:
    "Return whether the processes work on GPUs."
    import torch
    return torch.cuda.is_available()


def _number(name: str, default: int) -> int:
    "Return the whole number in an environment variable; `default` if it is unset or empty."
    text = os.environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise BadSetting(f"the environment variable {name} must be a whole number, not {text!r}; "
                         "launchers such as torchrun set it, otherwise leave it unset") from None


def _join() -> None:
    "Select this process's GPU, and create the process group unless a user's script has done so."
    try:
        import accelerate  # noqa: F401 - fastai trains with it
    except ImportError as e:
        raise BadSetting(f"training with {process_count()} processes needs the package accelerate: "
                         "pip install accelerate") from e
    import torch
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # by torch, with WORLD_SIZE
    if missing := [name for name in needed if name not in os.environ]:
        raise BadSetting(f"WORLD_SIZE={process_count()} is set without {', '.join(missing)}; "
                         "start the processes with torchrun or accelerate launch, which set them, "
                         "or unset WORLD_SIZE to train in one process")
    gpus = torch.cuda.device_count()
    if gpus:
        if _local_count() > gpus:
            raise BadSetting(f"{_local_count()} processes need as many GPUs, but this machine has "
                             f"{gpus}; use --nproc_per_node {gpus}")
        torch.cuda.set_device(_number("LOCAL_RANK", 0))
    elif _local_count() == process_count():
        # by the name of the machine, gloo may find an interface that does not work
        interfaces = {name for _, name in socket.if_nameindex()}
        for loopback in {"lo", "lo0"} & interfaces:  # on Linux, on macOS
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    if not torch.distributed.is_initialized():
        # the others wait so long for the first one to download, unpack and decode
        torch.distributed.init_process_group("nccl" if gpus else "gloo", timeout=timedelta(hours=2))
        atexit.register(_leave)  # not sooner: the group cannot be created again under one launcher


def _leave() -> None:
    "Leave the process group."
    from torch import distributed
    if distributed.is_initialized():  # a script of the user's own may have done so
        distributed.destroy_process_group()


def _local_count() -> int:
    "Return how many of the processes are on this machine."
    return _number("LOCAL_WORLD_SIZE", process_count())


def _tried(func: Callable, *args, **kwargs) -> tuple[Any, Exception | None]:
    "Return the result of `func`, or its error in a form that can be sent to other processes."
    try:
        with alone():
            return func(*args, **kwargs), None
    except Exception as e:
        try:
            pickle.loads(pickle.dumps(e))
        except Exception:
            return None, RuntimeError(f"{type(e).__name__}: {e}")
        return None, e


@contextmanager
def _reported_end() -> Iterator[None]:
    """While the context lasts, raise `ProcessEnded` if another process has ended.

    torch reports that, or the launcher does, which sends SIGTERM to the remaining processes.
    """
    # in torch's messages about a process that has ended.
    words = ("connection closed", "connection reset", "broken pipe", "remote process exited")
    in_main = threading.current_thread() is threading.main_thread()  # only it can handle signals

    def end(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # this process is ending, after its message
        raise _Ended

    usual = signal.signal(signal.SIGTERM, end) if in_main else None
    try:
        yield
    except (_Ended, RuntimeError) as e:
        lost = any(word in str(e).lower() for word in words)
        if isinstance(e, ProcessEnded) or not (lost or isinstance(e, _Ended)):
            raise
        if in_main:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        message = "another process of the training has ended"
        if isinstance(e, _Ended):
            message += ", or the launcher was stopped"
        ended = ProcessEnded(message)
        for note in getattr(e, "__notes__", ()):
            ended.add_note(note)
        raise ended from e
    finally:
        if in_main and signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, usual)
