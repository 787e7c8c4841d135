"""Take the state of a training from a `Learner` between two batches, and give it to another."""
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.torch_core import get_model
from fastcore.foundation import L


def take_state(
    learn: Learner,  # between two batches of a training
    trains_on: bool,  # whether the optimiser is still needed
) -> dict[str, Any]:  # for `give_state`; its tensors are those of `learn`, not copies
    "Return weights, optimiser, schedule and records, and the states of callbacks that have one."
    recorder = learn.recorder
    return {
        "model": get_model(learn.model).state_dict(),
        "opt": learn.opt.state_dict() if trains_on else None,
        "scaler": learn.scaler.state_dict() if getattr(learn, "scaler", None) else None,  # of fp16
        "callbacks": {cb.name: cb.state_dict() for cb in _with_state(learn)},
        "recorder": {
            "values": recorder.values,
            "iters": recorder.iters,
            "lrs": torch.tensor(recorder.lrs, dtype=torch.float64),
            "losses": torch.stack(recorder.losses) if recorder.losses else None,
            "smooth_loss": [recorder.smooth_loss.count, recorder.smooth_loss.val],
            "epoch_seconds": time.time() - recorder.start_epoch},
        "train_iter": learn.train_iter,
        "pct_train": learn.pct_train}


def give_state(
    learn: Learner,  # of the same kind, in a training that has just begun
    state: dict[str, Any],  # from `take_state`
    within_epoch: bool,  # whether it was taken within an epoch, not at the end of one
) -> None:
    """Bring `learn` to the state of the other one.

    Random generators are left as they are (see `set_random_state`).
    """
    device = next(learn.model.parameters()).device
    recorder = learn.recorder
    get_model(learn.model).load_state_dict(state["model"])
    if state["opt"]:
        opt = _to(state["opt"], device)
        learn.opt.load_state_dict({**opt, "hypers": L(opt["hypers"])})
    if state["scaler"]:
        learn.scaler.load_state_dict(state["scaler"])
    for cb in _with_state(learn):
        cb.load_state_dict(_to(state["callbacks"][cb.name], device))
    kept = state["recorder"]
    recorder.values = L(L(row) for row in kept["values"])
    recorder.iters = kept["iters"]
    recorder.lrs = kept["lrs"].tolist()
    recorder.losses = [] if kept["losses"] is None else list(kept["losses"])
    recorder.smooth_loss.count, recorder.smooth_loss.val = kept["smooth_loss"]
    learn.train_iter = state["train_iter"]
    if within_epoch:
        learn.pct_train = state["pct_train"]
        recorder.start_epoch = time.time() - kept["epoch_seconds"]


def _with_state(learn: Learner) -> list[Callback]:
    "Return the callbacks that have a state to keep."
    # ask the class, since an instance passes the question on to the model
    return [cb for cb in learn.cbs if hasattr(type(cb), "load_state_dict")]


def take_random_state() -> dict[str, Any]:
    "Return the states of all generators that a training draws from."
    kind, words, *rest = np.random.get_state()
    return {"python": random.getstate(),
            "numpy": [kind, words.tolist(), *rest],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_state(
    state: dict[str, Any],  # from `take_random_state`
) -> None:
    "Let Python, numpy and torch draw the same numbers as after the state was taken."
    random.setstate(python_state(state["python"]))
    kind, words, *rest = state["numpy"]
    np.random.set_state((kind, np.array(words, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def random_state_kept() -> Iterator[None]:
    "Restore the states of all generators after the context."
    state = take_random_state()
    try:
        yield
    finally:
        set_random_state(state)


def python_state(
    state: list,  # of a `random.Random`, whose tuples JSON has turned into lists
) -> tuple:
    "Return the state in the form that `Random.setstate` takes."
    version, words, following = state
    return version, tuple(words), following


def pack(
    value: Any,  # numbers, strings, tensors, and lists and dicts of those
    tensors: dict[str, torch.Tensor],  # to which its tensors are added
) -> Any:
    "Return `value` as JSON can hold it, with names in place of its tensors."
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = torch.as_subclass(value, torch.Tensor)
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": {key: pack(item, tensors) for key, item in value.items()}}
    if isinstance(value, (list, tuple, L)):
        return [pack(item, tensors) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def unpack(
    value: Any,  # from `pack`
    tensors: dict[str, torch.Tensor],
) -> Any:
    "Return what `pack` was given, with lists in place of tuples."
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: unpack(item, tensors) for key, item in value["dict"].items()}
    return [unpack(item, tensors) for item in value] if isinstance(value, list) else value


def _to(value: Any, device: torch.device) -> Any:
    "Return `value` with its tensors on `device`."
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [_to(item, device) for item in value]
    return value.to(device) if isinstance(value, torch.Tensor) else value
