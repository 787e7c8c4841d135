"""fastai's `DataLoader` for digits, over image files and over images kept in memory."""
from collections.abc import Iterator, Sized
from itertools import islice

import torch
from fastai.data.core import TfmdDL
from fastai.data.transforms import IntToFloatTensor, ToTensor
from fastai.torch_core import TensorCategory, TensorImageBW

from digitfast.data.images import FitSize


class DigitDL(TfmdDL):
    "fastai's `DataLoader`, which shuffles with torch's generator, so `set_seed` fixes the order."

    def shuffle_fn(self, idxs):
        return [idxs[i] for i in torch.randperm(len(idxs)).tolist()]


class ResidentDL(DigitDL):
    """A `DigitDL` whose images are all in memory, on the device: a batch is one indexing.

    The dataset is still that of the files, for callers that need an item, its name or its
    transforms. A loader of other items (`test_dl`, `export`) reads files again, and so does this
    one after its items or their transforms have been changed.
    """

    def __init__(self, dataset, pixels: torch.Tensor = None, labels: torch.Tensor = None, **kwargs):
        self.pixels = pixels  # uint8 `[n, h, w]`, in the dataset's order
        self.labels = labels  # int64 `[n]`
        super().__init__(dataset, **{**kwargs, "num_workers": 0})
        self.in_memory = self._items()  # the items of these images, to notice later changes
        if self.device is not None:
            self.to(self.device)

    @property
    def device(self) -> torch.device | None:
        return self._device

    @device.setter
    def device(self, device: int | str | torch.device | None):
        TfmdDL.device.fset(self, device)
        if self._device is not None:
            self.pixels = self.pixels.to(self._device)
            self.labels = self.labels.to(self._device)

    def new(self, dataset=None, cls=None, **kwargs):
        if dataset is None or dataset is self.dataset:
            return super().new(dataset, cls, pixels=self.pixels, labels=self.labels, **kwargs)
        return super().new(dataset, cls or DigitDL, **kwargs)

    def reads_files(self) -> bool:
        """Return whether items are read from their files, as fastai does.

        They are once the items or their transforms differ from those of the images in memory, or
        once one of fastai's own steps to a batch has been replaced.
        """
        tfms = self.after_item.fs
        replaced = {"create_item", "create_batch", "retain", "do_batch"} & vars(self).keys()
        return bool([type(tfm) for tfm in tfms] != [FitSize, ToTensor]
                    or tfms[0].size != self.pixels.shape[-1]
                    or replaced or self.before_batch.fs or self._items() != self.in_memory)

    def _items(self) -> list:
        "Return the items, and of each pipeline its transforms and its own items."
        pipelines = getattr(self.dataset, "tls", ())
        return [list(getattr(self.dataset, "items", ())),
                *((list(tl.items), list(tl.tfms.fs)) for tl in pipelines)]

    def get_idxs(self) -> torch.Tensor | list[int]:  # a list where fastai has replaced this method
        return self.shuffle_fn(list(range(self.n))) if self.shuffle else torch.arange(self.n)

    def shuffle_fn(self, idxs: list[int]) -> torch.Tensor:
        return torch.tensor(idxs)[torch.randperm(len(idxs))]

    def create_batches(self, samps) -> Iterator:  # fastai's `DistributedDL` calls only this
        if self.reads_files():
            yield from super().create_batches(map(int, samps))
            return
        for idxs in self.chunkify(samps):
            yield self._draw(torch.tensor(list(idxs), device=self.pixels.device))

    def _draw(self, idxs: torch.Tensor) -> tuple[TensorImageBW, TensorCategory]:
        "Return the images of `idxs`, as uint8 `[n, 1, h, w]`, and their labels."
        return (torch.as_subclass(self.pixels.index_select(0, idxs).unsqueeze(1), TensorImageBW),
                torch.as_subclass(self.labels.index_select(0, idxs), TensorCategory))

    def index_batches(self) -> tuple[torch.Tensor, ...]:
        "Begin a pass over the images and return the indices of each batch, on the device."
        self.randomize()
        self.before_iter()
        idxs = self.get_idxs()
        if not isinstance(idxs, torch.Tensor):  # from show_batch(unique=True) they never end
            finite = idxs if isinstance(idxs, Sized) else islice(idxs, self.n)
            idxs = torch.tensor(list(finite), dtype=torch.int64)
        batches = idxs.to(self.pixels.device).split(self.bs)
        short = len(batches[-1]) < (self.bs if self.drop_last else 1)
        return batches[:-1] if short else batches

    def batch(
        self,
        idxs: torch.Tensor,  # of the images, on the device
    ) -> tuple[TensorImageBW, TensorCategory]:
        "Return the batch of these images, transformed."
        images, labels = self._draw(idxs)
        if [type(f) for f in self.after_batch.fs] == [IntToFloatTensor]:
            # directly, since the pipeline takes as long as a training step of a small network
            images = torch.as_subclass(images, torch.Tensor).float().div_(255)
            return torch.as_subclass(images, TensorImageBW), labels
        return self.after_batch((images, labels))

    def __iter__(self):
        if self.reads_files():
            yield from super().__iter__()
            return
        for idxs in self.index_batches():
            yield self.batch(idxs)
        self.after_iter()
