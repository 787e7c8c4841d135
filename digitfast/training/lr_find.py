"""fastai's learning rate finder, on digits."""
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
from fastai.callback.schedule import minimum, slide, steep, valley
from fastai.torch_core import set_seed

from digitfast.data.loaders import digit_dls
from digitfast.errors import BadSetting
from digitfast.registry import optimizer
from digitfast.training.console import console_table
from digitfast.training.learners import digit_learner
from digitfast.training.recipe import check_seed


def find_lr(
    source: str = "mnist",  # as for `digit_dls`; the others are as for `train_run`
    arch: str = "digitnet",
    bs: int = 128,
    opt: str = "adam",
    size: int = 28,
    device: str | None = None,
    seed: int = 42,
    plot: str | Path = "lr_find.png",  # file for the curve of loss over learning rate
) -> dict[str, float]:
    """Return fastai's suggestions for the learning rate, by the name of the method.

    They are from a mock training of 100 batches, whose curve of losses is written to `plot`.

    Raises: `BadSetting` for a `plot` that is not a .png in an existing folder.
    """
    opt_func = optimizer(opt)
    check_seed(seed)
    if Path(plot).suffix.lower() != ".png" or not Path(plot).absolute().parent.is_dir():
        raise BadSetting("plot must be the path of a .png in an existing folder, "
                         f"such as lr_find.png, not {str(plot)!r}")
    set_seed(seed)
    dls = digit_dls(source, bs=bs, size=size, device=device)
    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        # matplotlib's, on a machine without a screen
        warnings.filterwarnings("ignore", category=UserWarning)
        learn = digit_learner(dls, arch, opt_func=opt_func, path=scratch)
        with console_table(learn):
            found = learn.lr_find(suggest_funcs=(valley, slide, steep, minimum), show_plot=False)
        learn.recorder.plot_lr_find()
        figure = plt.gcf()
        axes = figure.axes[0]
        for i, (name, rate) in enumerate(found._asdict().items()):
            axes.axvline(rate, linestyle=":", linewidth=1, color="grey")
            height = 0.98 - 0.2 * i  # at different heights, as two rates may be nearly the same
            axes.annotate(name, (rate, height), xycoords=("data", "axes fraction"), rotation=90,
                          va="top")
        figure.savefig(plot, dpi=120, bbox_inches="tight")
        plt.close(figure)
    return {name: float(rate) for name, rate in found._asdict().items()}
