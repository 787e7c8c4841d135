"""Optimisers for fastai's `Learner`: the article's own, and Adam in one call per step.

fastai's `Optimizer` calls its step callbacks for one parameter after the other; for a network of
many small tensors, or of millions of weights, that loop in Python takes longer than the arithmetic.
Here the callbacks get all parameters of a group at once. Everything else (groups, schedules,
freezing, saving) is fastai's.
"""
from collections import defaultdict

import torch
from fastai.optimizer import Optimizer
from torch.optim.adamw import adamw

from digitfast.errors import BadSetting


class _GroupOptimizer(Optimizer):
    "fastai's `Optimizer`, which calls `cb(params, states, **hypers)` once per group and step."

    def step(self, closure=None):
        "Update every parameter that has a gradient."
        if closure is not None:
            raise NotImplementedError("fastai's optimisers take no closure; call step() alone")
        with torch.no_grad():
            for params, states, hypers in self._groups():
                for cb in self.cbs:
                    cb(params, states, **hypers)

    def zero_grad(self):
        "Remove all gradients."
        for params in self.param_lists:
            for p in params:
                p.grad = None

    def _groups(self):
        """Yield parameters, their states and their hyperparameters.

        Parameters that fastai excludes from weight decay form groups of their own.
        """
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
    "Apply the article's rule, `p -= lr * p.grad`, to all `params` in one call; a step callback."
    torch._foreach_add_(params, [p.grad for p in params], alpha=-lr)


class BasicOptim(_GroupOptimizer):
    """Plain gradient descent, `p -= lr * p.grad`, for `Learner(..., opt_func=BasicOptim)`.

    Equal to `torch.optim.SGD(params, lr, momentum=0)` step by step. Schedules such as
    `fit_one_cycle` set `mom` on every optimiser; here that has no effect.

    Raises: `BadSetting` for a momentum or a weight decay other than 0.
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
            raise BadSetting(f"BasicOptim has no momentum: mom must be 0, not {mom}; "
                             "leave mom out, or use SGD")
        super().__init__(params, cbs=[basic_step], lr=lr, mom=mom, wd=wd)

    def _groups(self):
        "Yield all parameters that have a gradient in one group, as there is no weight decay."
        for params, hypers in zip(self.param_lists, self.hypers, strict=True):
            if moving := [p for p in params if p.grad is not None]:
                yield moving, (), hypers

    def set_hyper(self, k, v):
        "Set hyperparameter `k` of every parameter group; refuse a weight decay other than 0."
        if k == "wd" and v:
            raise BadSetting(f"BasicOptim has no weight decay: wd must be 0, not {v}; "
                             "leave wd out, or use SGD")
        super().set_hyper(k, v)


def fused_adam_step(params, states, lr, mom, sqr_mom, eps, wd, **hypers):
    "Do a step of AdamW (Adam with decoupled weight decay) for all `params` in one fused call."
    for p, state in zip(params, states, strict=True):
        if "grad_avg" not in state:
            state |= {"grad_avg": torch.zeros_like(p), "sqr_avg": torch.zeros_like(p), "step": 0}
        if not isinstance(state["step"], torch.Tensor):  # fastai's Adam saves a number
            state["step"] = torch.tensor(float(state["step"]), device=p.device)
    adamw(
        params,
        [p.grad for p in params],
        exp_avgs=[state["grad_avg"] for state in states],
        exp_avg_sqs=[state["sqr_avg"] for state in states],
        max_exp_avg_sqs=[],
        state_steps=[state["step"] for state in states],
        fused=True, amsgrad=False, maximize=False,
        lr=float(lr), beta1=float(mom), beta2=float(sqr_mom), eps=float(eps),
        weight_decay=float(wd),
    )


class FusedAdam(_GroupOptimizer):
    """fastai's `Adam` in one fused call per step.

    Weight decay is decoupled, and biases and norms have none. Equal to `fastai.optimizer.Adam`
    except for rounding.
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
        super().__init__(params, cbs=[fused_adam_step],
                         lr=lr, mom=mom, sqr_mom=sqr_mom, eps=eps, wd=wd)
