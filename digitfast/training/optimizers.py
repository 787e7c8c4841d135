"""Optimisers for fastai's `Learner`: the article's own, and Adam in one call a step.

fastai's `Optimizer` hands its step callbacks one parameter after the other; for a network of many small tensors, or of
millions of weights, walking over them in Python takes longer than the arithmetic. Here the callbacks get all
parameters of a group at once. Everything else (groups, schedules, freezing, saving) is fastai's.
"""
from collections import defaultdict

import torch
from fastai.optimizer import Optimizer
from torch.optim.adamw import adamw

from digitfast.errors import BadSetting


class _GroupOptimizer(Optimizer):
    "fastai's `Optimizer` with step callbacks `cb(params, states, **hypers)`, each called once a group."

    def step(self, closure=None):
        "Move every parameter that has a gradient."
        if closure is not None:
            raise NotImplementedError("fastai's optimisers take no closure")
        with torch.no_grad():
            for params, states, hypers in self._groups():
                for cb in self.cbs:
                    cb(params, states, **hypers)

    def zero_grad(self):
        "Forget all gradients."
        for params in self.param_lists:
            for p in params:
                p.grad = None

    def _groups(self):
        "Parameters, their states and hyperparameters; those that fastai excludes from weight decay by themselves."
        for params, hypers in zip(self.param_lists, self.hypers, strict=True):
            groups = defaultdict(lambda: ([], []))
            for p in params:
                if p.grad is not None:
                    state = self.state[p]
                    group = groups[state.get("do_wd", True)]
                    group[0].append(p)
                    group[1].append(state)
            for decays, (group, states) in groups.items():
                yield group, states, {**hypers, "wd": hypers["wd"] if decays else 0.0}


def basic_step(params, states, lr, **hypers):
    "The article's rule, as a step callback: `p -= lr * p.grad`, for all `params` in one call."
    torch._foreach_add_(params, [p.grad for p in params], alpha=-lr)


class BasicOptim(_GroupOptimizer):
    """Gradient descent with nothing added: `p -= lr * p.grad`, for `Learner(..., opt_func=BasicOptim)`.

    Equal to `torch.optim.SGD(params, lr, momentum=0)` step by step. `mom` is accepted because `fit_one_cycle` sets it
    on every optimiser, and has no effect then. Who asks for momentum or weight decay gets `BadSetting`.

    Source: `BasicOptim` of the article and of chapter 4 of the fastai book.
    """

    def __init__(
        self,
        params,  # parameters, or lists of them as parameter groups
        lr: float,  # learning rate, above 0
        mom: float = 0.0,  # must be 0; schedules may set it later, without effect
        wd: float = 0.0,  # must be 0
    ):
        if mom:
            raise BadSetting(f"BasicOptim has no momentum, and mom={mom} was given; leave mom out, or take SGD")
        super().__init__(params, cbs=[basic_step], lr=lr, mom=mom, wd=wd)

    def _groups(self):
        "All parameters that have a gradient, at once: without weight decay none is a case by itself."
        for params, hypers in zip(self.param_lists, self.hypers, strict=True):
            if moving := [p for p in params if p.grad is not None]:
                yield moving, (), hypers

    def set_hyper(self, k, v):
        "Set hyperparameter `k` of every parameter group; a weight decay other than 0 is refused."
        if k == "wd" and v:
            raise BadSetting(f"BasicOptim has no weight decay, and wd={v} was given; leave wd out, or take SGD")
        super().set_hyper(k, v)


def fused_adam_step(params, states, lr, mom, sqr_mom, eps, wd, **hypers):
    "A step of Adam with decoupled weight decay, for all `params` in one fused call of torch."
    for p, state in zip(params, states, strict=True):
        if "grad_avg" not in state:
            state |= {"grad_avg": torch.zeros_like(p), "sqr_avg": torch.zeros_like(p), "step": 0}
        if not isinstance(state["step"], torch.Tensor):  # a state of fastai's Adam has a number
            state["step"] = torch.tensor(float(state["step"]), device=p.device)
    means, squares, steps = ([state[key] for state in states] for key in ("grad_avg", "sqr_avg", "step"))
    adamw(params, [p.grad for p in params], means, squares, [], steps, fused=True, amsgrad=False, maximize=False,
          beta1=float(mom), beta2=float(sqr_mom), lr=float(lr), weight_decay=float(wd), eps=float(eps))


class FusedAdam(_GroupOptimizer):
    """fastai's `Adam` (decoupled weight decay, none on biases and norms) in one fused call a step.

    Equal to `fastai.optimizer.Adam` but for rounding.
    """

    def __init__(
        self,
        params,  # parameters, or lists of them as parameter groups
        lr: float,  # learning rate, above 0
        mom: float = 0.9,  # of the running mean of gradients, 0 to below 1
        sqr_mom: float = 0.99,  # of the running mean of their squares, 0 to below 1
        eps: float = 1e-5,  # added to the denominator
        wd: float = 0.01,  # weight decay, 0 or more
    ):
        super().__init__(params, cbs=[fused_adam_step], lr=lr, mom=mom, sqr_mom=sqr_mom, eps=eps, wd=wd)
