"""Several processes that a launcher such as `torchrun` has started: which one this is, and what they do for each other.

torch is imported inside the functions: a command's mistake is told without it.
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

PATIENCE = timedelta(hours=2)  # that the others wait for the first one to download, unpack and decode
LAUNCHED_WITH = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # and WORLD_SIZE, what torch is told by
LOOPBACKS = {"lo", "lo0"}  # names of the network interface of a machine with itself, on Linux and macOS
_LOST = ("connection closed", "connection reset", "broken pipe", "remote process exited")  # torch, where one has ended


class _Ended(BaseException):
    "What SIGTERM raises: no library's `except Exception` takes it for its own."


def process_count() -> int:
    "How many processes work together; 1 where no launcher has started more."
    return max(1, _number("WORLD_SIZE", 1))


def process_rank() -> int:
    "The place of this process among them: 0 is the first, which alone prints and writes."
    return _number("RANK", 0)


def is_first() -> bool:
    "Whether this process is the one that prints and writes; it is, where there is no other."
    return process_rank() == 0


def launched(
    command: str,  # of digitfast, such as "fit --resume best"
    processes: int | None = None,  # on this machine; None: as many as there are now
) -> str:
    "How `command` is started with so many processes."
    processes = processes or _here()
    return f"torchrun --nproc_per_node {processes} -m digitfast {command}" if processes > 1 else f"digitfast {command}"


def check_shares(
    bs: int,  # images a batch
) -> None:
    "Raise `BadSetting` for a batch that the processes cannot share evenly, or that leaves one of them a single image."
    n = process_count()
    if n > 1 and (bs % n or bs < 2 * n):
        below, above = max(2, bs // n) * n, max(2, bs // n + 1) * n
        raise BadSetting(f"bs={bs} is the batch of all {n} processes together, in equal shares of at least 2 images; "
                         f"try bs={' or '.join(map(str, sorted({below, above})))}")


@contextmanager
def joined() -> Iterator[None]:
    """While the context lasts, the processes that were started together can work together, if there are several.

    By NCCL where there are GPUs, of which each process takes its own; on CPUs by gloo. A script of one's own does all
    of its work in this context, so that its images and networks are on the process's own GPU.
    Raises: `BadSetting` without the package accelerate, with more processes than GPUs, or by a launcher that leaves out
    what torch has to know; `ProcessEnded`, once one of the processes has ended.
    """
    if process_count() == 1:
        yield
        return
    with _ended_with_a_word():
        _join()
        try:
            yield
        except BaseException as e:
            if isinstance(e, ProcessEnded) or not isinstance(e, DigitError):  # a mistake is met by all of them
                atexit.unregister(_leave)  # it waits for the others, who may be waiting for this one
            raise


def on_first_process(
    func: Callable,  # its result can be pickled
) -> Callable:
    "`func`, run on the first process only; all processes return its result, or raise its error. The others wait."
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
    """`func`, run on the first process before the others begin, so that these find what it has unpacked and decoded.

    Each process returns its own result. An error on one of them is raised on all.
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
    value: Any,  # which can be pickled
) -> list:
    "The `value` of every process, in their order."
    if process_count() == 1:
        return [value]
    from torch.distributed import all_gather_object
    values = [None] * process_count()
    all_gather_object(values, value)
    return values


def wanted_by_any(
    *wishes: bool,
) -> list[bool]:
    "Of each wish, whether any process has it: the same on all of them."
    if process_count() == 1:
        return list(wishes)
    import torch
    from torch import distributed
    wishes = torch.tensor(wishes, dtype=torch.uint8, device="cuda" if on_gpus() else "cpu")
    distributed.all_reduce(wishes, distributed.ReduceOp.MAX)
    return wishes.bool().tolist()


@contextmanager
def alone() -> Iterator[None]:
    "While the context lasts, fastai takes this process for the only one, and so waits for no other."
    count = os.environ.pop("WORLD_SIZE", None)
    try:
        yield
    finally:
        if count is not None:
            os.environ["WORLD_SIZE"] = count


def on_gpus() -> bool:
    "Whether the processes that work together do so on GPUs."
    import torch
    return torch.cuda.is_available()


def _number(name: str, default: int) -> int:
    "The whole number in a variable of the environment; `default` where it is not set, or empty."
    text = os.environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise BadSetting(f"the environment has {name}={text!r}, which must be a whole number; launchers such as "
                         "torchrun set it, otherwise leave it unset") from None


def _join() -> None:
    "Take this process's GPU, and make the process group where a script of the user's own has made none."
    try:
        import accelerate  # noqa: F401 - what fastai trains with
    except ImportError as e:
        raise BadSetting(f"{process_count()} processes can train together with the package accelerate: "
                         "pip install accelerate") from e
    import torch
    if missing := [name for name in LAUNCHED_WITH if name not in os.environ]:
        raise BadSetting(f"WORLD_SIZE={process_count()} is set, and {' and '.join(missing)} not; torchrun and "
                         "accelerate launch set them. Without WORLD_SIZE one process trains alone")
    gpus = torch.cuda.device_count()
    if gpus:
        if _here() > gpus:
            raise BadSetting(f"{_here()} processes are more than the {gpus} GPUs of this machine; take "
                             f"--nproc_per_node {gpus}")
        torch.cuda.set_device(_number("LOCAL_RANK", 0))
    elif _here() == process_count():  # by the name of a machine, gloo may find an interface that is not to be had
        for loopback in LOOPBACKS & {name for _, name in socket.if_nameindex()}:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if gpus else "gloo", timeout=PATIENCE)
        atexit.register(_leave)  # not sooner: the group cannot be made anew while the launcher runs


def _leave() -> None:
    "Take this process out of the process group."
    from torch import distributed
    if distributed.is_initialized():  # a script of the user's own may have done so
        distributed.destroy_process_group()


def _here() -> int:
    "How many of the processes are on this machine."
    return _number("LOCAL_WORLD_SIZE", process_count())


def _tried(func: Callable, *args, **kwargs) -> tuple[Any, Exception | None]:
    "Return the result of `func`, or the error that it raises, in a form that other processes can be sent."
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
def _ended_with_a_word() -> Iterator[None]:
    """While the context lasts, `ProcessEnded` is raised where another process has ended: torch tells of it, or the
    launcher, which sends SIGTERM to those that are left."""
    in_main = threading.current_thread() is threading.main_thread()  # others have no say in signals

    def end(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending already, and has something to say first
        raise _Ended

    usual = signal.signal(signal.SIGTERM, end) if in_main else None
    try:
        yield
    except (_Ended, RuntimeError) as e:
        lost = any(word in str(e).lower() for word in _LOST)
        if isinstance(e, ProcessEnded) or not (lost or isinstance(e, _Ended)):
            raise
        if in_main:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ended = ProcessEnded("another process of the training has ended"
                             + (", or the launcher was told to end" if isinstance(e, _Ended) else ""))
        for note in getattr(e, "__notes__", ()):
            ended.add_note(note)
        raise ended from e
    finally:
        if in_main and signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, usual)
