"""A `Learner` trained by several processes, each with its share of every batch: fastai's `distrib_ctx`, made exact.

Imported only where there are several: fastai's own module imports accelerate.
"""
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.data.load import DataLoader
from fastai.distributed import DistributedDL
from fastai.learner import Learner
from fastai.torch_core import apply, get_model, set_seed, to_detach
from torch import distributed
from torch.nn.modules.batchnorm import _BatchNorm

from digitfast.training.processes import check_shares, on_gpus, process_rank


@contextmanager
def trained_together(
    learn: Learner,  # with the same weights and data on every process, which have joined
) -> Iterator[None]:
    """While the context lasts, all processes train `learn` together.

    A batch of `learn.dls` is shared out: of `bs` images each process takes as many, and the gradient is that of the
    whole batch. So steps, learning rates and schedules are those of one process. Weights are the same on all, and so
    are batch norm's statistics: its running ones are the first process's, and a training step is normalised over the
    whole batch on GPUs, on CPUs over the share of each process. Random changes of the images differ between the
    processes. Losses and metrics of validation are those of all validation images, each counted once.

    Raises: `BadSetting` where the batches cannot be shared out evenly.
    """
    check_shares(learn.dls.train.bs)
    _draw_apart()
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpus() else torch.device("cpu")
    learn.dls.to(device)
    learn.model.to(device)
    loaders = learn.dls.loaders
    with (_own_batch_norm(learn),
          learn.distrib_ctx(sync_bn=on_gpus(), cpu=not on_gpus(), mixed_precision="no")):  # `train_learner` has its own
        learn.distributed_trainer._wrap_dl = SharedDL.of
        try:
            with learn.added_cbs(_WholeAnswers()), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Grad strides do not match")  # of 1×1 and 1-channel kernels
                yield
        finally:  # where a training was interrupted, fastai leaves them as they are
            learn.model, learn.dls.loaders = get_model(learn.model), loaders


class SharedDL(DistributedDL):
    """fastai's `DistributedDL`, by which each process takes its share of every batch of `dl`: the batches are those of
    one process, with the same images.

    Where a last batch, or a batch of validation, has no equal shares, the first images of it fill up the last ones;
    `whole` leaves them out again.
    """

    def __init__(self, dl: DataLoader):
        super().__init__(dl)
        share = -(-dl.bs // self.world_size)
        self.together = share * self.world_size  # images a batch
        self.part = dl.new(bs=share, drop_last=False)
        self.part.get_idxs = self.get_idxs  # given to `new`, it would become a method of the other loader's

    @classmethod
    def of(cls, dl: DataLoader) -> "SharedDL":
        return dl if isinstance(dl, cls) else cls(dl)

    @property
    def rng(self): return self.dl.rng

    def __len__(self):
        return self.dl.n // self.together if self.drop_last else -(-self.dl.n // self.together)

    def __iter__(self): return iter(self.part)
    def new(self, *args, **kwargs): return self.dl.new(*args, **kwargs)
    def after_batch(self, b): return self.part.after_batch(b)

    def get_idxs(self):
        "The items of this process, one batch's share behind the other."
        self.dl.randomize()
        drawn = self.dl.get_idxs()
        idxs = self._broadcast(torch.as_tensor(drawn), 0)
        shares = []
        for batch in idxs.split(self.together)[:len(self)]:
            size = -(-len(batch) // self.world_size)
            places = torch.arange(self.rank * size, (self.rank + 1) * size) % len(batch)
            shares.append(batch[places])
        mine = torch.cat(shares)
        return mine if isinstance(drawn, torch.Tensor) else mine.tolist()

    def whole(
        self,
        b,  # tensors of this process's share of a batch
        i: int,  # number of the batch
    ):
        "The same of the whole batch, in its order."
        n = min(self.together, self.dl.n - i * self.together)
        return apply(lambda t: t[:n], to_detach(b, cpu=False, gather=True))

    def to_detach(self, b, cpu=True, gather=True):
        return to_detach(b, cpu, gather and torch.is_grad_enabled())  # validation has gathered its answers already

    def _broadcast(self, t, rank):  # fastai's puts it on a GPU, which is not always there
        there = t.cuda() if on_gpus() else t.clone()
        distributed.broadcast(there, rank)
        return there.cpu()


class _WholeAnswers(Callback):
    "Gives every process the answers to a whole batch of validation, of which it has worked out its share."

    order = 12  # when the answers are floats again

    def after_pred(self):
        if not self.training:
            self.learn.pred, self.learn.yb = self.dl.whole((self.pred, self.yb), self.iter)


@contextmanager
def _own_batch_norm(learn: Learner) -> Iterator[None]:
    """Behind the context the network has its own layers of batch norm again, instead of those that fastai puts in their
    place on GPUs: `SyncBatchNorm` cannot train elsewhere. They share weights and statistics."""
    own = {name: layer for name, layer in learn.model.named_modules() if isinstance(layer, _BatchNorm)}
    try:
        yield
    finally:
        for name, layer in own.items():
            learn.model.set_submodule(name, layer.train(learn.model.get_submodule(name).training))


def _draw_apart() -> None:
    """Have the random generators of each process but the first draw something of their own, by the seeds there were.

    The first one's, which settle the order of the images, are as in a training by one process."""
    if process_rank():
        seed = np.random.SeedSequence([torch.randint(2**31, (1,)).item(), process_rank()]).generate_state(1)[0]
        set_seed(int(seed))
