"""The article's own optimiser, in the form that fastai's `Learner` takes."""
from fastai.optimizer import Optimizer

from digitfast.errors import BadSetting


def basic_step(p, lr, **hypers):
    "The article's rule, as a step callback of fastai's `Optimizer`: `p -= lr * p.grad`."
    p.data.add_(p.grad.data, alpha=-lr)


class BasicOptim(Optimizer):
    """Gradient descent with nothing added: `p -= lr * p.grad`, for `Learner(..., opt_func=BasicOptim)`.

    Equal to `torch.optim.SGD(params, lr, momentum=0)` step by step. `mom` is accepted because `fit_one_cycle` sets it
    on every optimiser, and has no effect. There is no weight decay: a `wd` other than 0 raises `BadSetting`.

    Source: `BasicOptim` of the article and of chapter 4 of the fastai book.
    """

    def __init__(
        self,
        params,  # parameters, or lists of them as parameter groups
        lr: float,  # learning rate, above 0
        mom: float = 0.0,  # accepted for fastai's schedules, has no effect
        wd: float = 0.0,  # must be 0
    ):
        super().__init__(params, cbs=[basic_step], lr=lr, mom=mom, wd=wd)

    def set_hyper(self, k, v):
        "Set hyperparameter `k` of every parameter group; a weight decay other than 0 is refused."
        if k == "wd" and v:
            raise BadSetting(f"BasicOptim has no weight decay, and wd={v} was given; leave wd out, or take SGD")
        super().set_hyper(k, v)
