"""Losses for fastai's `Learner`."""
import torch
from fastai.losses import BaseLoss, CrossEntropyLossFlat
from torch import nn


class _PlainTensors:
    "Mixin of a fastai loss: return a plain tensor, as fastai's own type slows down what follows."

    def _contiguous(self, x):
        if isinstance(x, torch.Tensor):
            if type(x) is not torch.Tensor:
                x = torch.as_subclass(x, torch.Tensor)
            x = x.transpose(self.axis, -1).contiguous()
        return x


class PlainCrossEntropyLoss(_PlainTensors, CrossEntropyLossFlat):
    "fastai's `CrossEntropyLossFlat`, on plain tensors."


class NLLLossFlat(_PlainTensors, BaseLoss):
    """`nn.NLLLoss` for fastai's `Learner`.

    `activation` turns log-probabilities into probabilities, and `decodes` into classes.
    """

    y_int = True  # labels are indices of classes, which MixUp and CutMix ask for

    def __init__(self, *args, axis: int = -1, **kwargs):
        super().__init__(nn.NLLLoss, *args, axis=axis, **kwargs)

    def decodes(self, x: torch.Tensor) -> torch.Tensor:
        "Return the class of highest probability."
        return x.argmax(dim=self.axis)

    def activation(self, x: torch.Tensor) -> torch.Tensor:
        "Return probabilities from log-probabilities."
        return x.exp()
