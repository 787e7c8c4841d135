"""Train a `Learner` in several processes, each with its share of every batch.

This is fastai's `distrib_ctx`, made exact. Import it only where there are several processes:
fastai's own module imports accelerate.
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

    Each process takes an equal share of the `bs` images of a batch, and the gradient is that of the
    whole batch, so that steps, learning rates and schedules are those of one process. Weights are
    the same on all processes, and so are batch norm's statistics: the running ones are the first
    process's, and a training step is normalised over the whole batch on GPUs, over the share of
    each process on CPUs. Random changes of the images differ between processes. Validation losses
    and metrics cover all validation images, each counted once.

    Raises: `BadSetting` if the batches cannot be shared evenly.
    """
    check_shares(learn.dls.train.bs)
    _draw_apart()
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpus() else torch.device("cpu")
    learn.dls.to(device)
    learn.model.to(device)
    loaders = learn.dls.loaders
    # mixed precision is up to `train_learner`
    with (_own_batch_norm(learn),
          learn.distrib_ctx(sync_bn=on_gpus(), cpu=not on_gpus(), mixed_precision="no")):
        learn.distributed_trainer._wrap_dl = SharedDL.of
        try:
            with learn.added_cbs(_WholeAnswers()), warnings.catch_warnings():
                # of 1×1 and 1-channel kernels
                warnings.filterwarnings("ignore", message="Grad strides do not match")
                yield
        finally:  # fastai does not restore them if training is interrupted
            learn.model = get_model(learn.model)
            learn.dls.loaders = loaders


class SharedDL(DistributedDL):
    """fastai's `DistributedDL`, with the same images in each batch as in a training by one process.

    Each process takes its share of every batch of `dl`. If a last batch, or a batch of validation,
    cannot be shared evenly, its first images are repeated to fill the last shares; `whole` leaves
    the repetitions out.
    """

    def __init__(self, dl: DataLoader):
        super().__init__(dl)
        share = -(-dl.bs // self.world_size)
        self.together = share * self.world_size  # images per batch, over all processes
        self.part = dl.new(bs=share, drop_last=False)
        self.part.get_idxs = self.get_idxs  # `new` would make it a method of the new loader

    @classmethod
    def of(cls, dl: DataLoader) -> "SharedDL":
        return dl if isinstance(dl, cls) else cls(dl)

    @property
    def rng(self): return self.dl.rng

    def __len__(self):
        full = self.dl.n // self.together
        return full if self.drop_last else -(-self.dl.n // self.together)

    def __iter__(self): return iter(self.part)
    def new(self, *args, **kwargs): return self.dl.new(*args, **kwargs)
    def after_batch(self, b): return self.part.after_batch(b)

    def get_idxs(self):
        "Return the items of this process, one batch's share after the other."
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
        "Return the tensors of the whole batch, in its order."
        n = min(self.together, self.dl.n - i * self.together)
        return apply(lambda t: t[:n], to_detach(b, cpu=False, gather=True))

    def to_detach(self, b, cpu=True, gather=True):
        # validation has gathered its answers already
        return to_detach(b, cpu, gather and torch.is_grad_enabled())

    def _broadcast(self, t, rank):  # fastai's own needs a GPU
        there = t.cuda() if on_gpus() else t.clone()
        distributed.broadcast(there, rank)
        return there.cpu()


class _WholeAnswers(Callback):
    "Gather the answers to a validation batch from all processes, which computed a share each."

    order = 12  # when the answers are floats again

    def after_pred(self):
        if not self.training:
            self.learn.pred, self.learn.yb = self.dl.whole((self.pred, self.yb), self.iter)


@contextmanager
def _own_batch_norm(learn: Learner) -> Iterator[None]:
    """Restore the network's own batch norm layers after the context.

    On GPUs fastai replaces them with `SyncBatchNorm`, which cannot train elsewhere. Both share
    weights and statistics.
    """
    own = {name: layer for name, layer in learn.model.named_modules()
           if isinstance(layer, _BatchNorm)}
    try:
        yield
    finally:
        for name, layer in own.items():
            learn.model.set_submodule(name, layer.train(learn.model.get_submodule(name).training))


def _draw_apart() -> None:
    """Seed the random generators of each process but the first from its rank and the present seed.

    The first one's, which decide the order of the images, are as in a training by one process.
    """
    if process_rank():
        entropy = [torch.randint(2**31, (1,)).item(), process_rank()]
        set_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
