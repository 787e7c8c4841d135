"""Everything that fastai offers for a `Learner` works with digitfast's too.

Each check first runs with fastai's own `Learner` and loaders; ours must give the same result. A
check that fails with fastai's is no check.
"""
import copy
import io
import pickle
import random
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial

import fastai.vision.all as fv
import numpy as np
import pytest
import torch
from fastai.callback.all import (
    ActivationStats,
    BnFreeze,
    CollectDataCallback,
    CutMix,
    GradientAccumulation,
    GradientClip,
    HookCallback,
    MixUp,
    PartialDL,
    ShortEpochCallback,
    ShowGraphCallback,
    WeightedDL,
)
from PIL import Image

from digitfast import (
    FusedAdam,
    article_learner,
    digit_dls,
    digitnet_learner,
    simple_learner,
    train_learner,
)
from digitfast.models.digit_nets import simple_net

BS, TRAIN, TEST = 32, 300, 120


def fastais_dls(path, **kwargs):
    return fv.ImageDataLoaders.from_folder(
        path, train="training", valid="testing", img_cls=fv.PILImageBW,
        **{"bs": BS, "val_bs": 128, "num_workers": 0, **kwargs})


def fastais_learner(dls, **kwargs):
    return fv.Learner(dls, simple_net(), **{"loss_func": fv.CrossEntropyLossFlat(),
                                            "metrics": fv.accuracy, **kwargs})


@dataclass
class Variant:
    "How to make loaders of the small digits and a `Learner` for them."
    path: object
    scratch: object
    make_dls: object
    make_learner: object

    def dls(self, **kwargs): return self.make_dls(self.path, **kwargs)

    def learn(self, dls=None, **kwargs):
        fv.set_seed(0)
        return self.make_learner(dls or self.dls(), path=self.scratch, **kwargs)

    def fitted(self, cbs=None, epochs=1, **kwargs):
        learn = self.learn(**kwargs)
        learn.fit_one_cycle(epochs, 0.01, cbs=cbs)
        return learn

    def files(self): return [self.path / f"testing/{digit}/30.png" for digit in range(10)]


def in_memory(path, **kwargs): return digit_dls(path, num_workers=0, **{"bs": BS, **kwargs})
def from_files(path, **kwargs): return in_memory(path, resident=False, **kwargs)


OURS = {"simple, in memory": (in_memory, simple_learner),
        "simple, from files": (from_files, simple_learner),
        "article, in memory": (in_memory, article_learner),
        "digitnet, in memory": (in_memory, digitnet_learner)}
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


@pytest.fixture(scope="module")
def references(digits, tmp_path_factory):
    "The result of each check with fastai's own, found once."
    scratch, found = tmp_path_factory.mktemp("fastais"), {}

    def reference(function):
        if function not in found:
            found[function] = function(Variant(digits, scratch, fastais_dls, fastais_learner))
        return found[function]
    return reference


# Callbacks ----------------------------------------------------------------------------------------


def shape(learn):
    "Return the steps and the values per epoch of a training; all values must be finite."
    rows = [list(row) for row in learn.recorder.values]
    assert np.isfinite(np.array(rows, dtype=float)).all()
    return len(learn.recorder.losses), [len(row) for row in rows]


def callback_check(name, make):
    def in_fit(v): return shape(v.fitted(make()))

    def in_train_learner(v):
        learn = v.learn()
        train_learner(learn, 1, 0.01, cbs=make())
        return shape(learn)
    in_fit.__name__ = f"{name} in fit_one_cycle"
    in_train_learner.__name__ = f"{name} in train_learner"
    CHECKS.extend([in_fit, in_train_learner])


class Means(HookCallback):
    def hook(self, m, i, o): return o.mean().item()


for name, make in {
        "MixUp": MixUp, "CutMix": CutMix, "GradientClip": lambda: GradientClip(0.5),
        "ShowGraph": ShowGraphCallback,
        "GradientAccumulation": lambda: GradientAccumulation(64), "BnFreeze": BnFreeze,
        "ActivationStats": lambda: ActivationStats(with_hist=True),
        "CollectData": CollectDataCallback,
        "Hook": Means, "CSVLogger": fv.CSVLogger, "SaveModel": fv.SaveModelCallback,
        "EarlyStopping": fv.EarlyStoppingCallback, "ReduceLROnPlateau": fv.ReduceLROnPlateau,
        "ParamScheduler": lambda: fv.ParamScheduler({"lr": fv.SchedCos(1e-3, 1e-4)}),
        "MixUp and GradientClip": lambda: [MixUp(), GradientClip()]}.items():
    callback_check(name, make)


@check
def a_short_epoch_has_a_shorter_row(v):
    return [len(row) for row in v.fitted(ShortEpochCallback(0.5), epochs=2).recorder.values]


@check
def the_best_model_is_loaded(v):
    learn = v.fitted(fv.SaveModelCallback(monitor="valid_loss"), epochs=3)
    return abs(learn.validate()[0] - min(row[1] for row in learn.recorder.values)) < 1e-3


@check
def early_stopping_stops(v):
    learn = v.learn()
    learn.fit(6, 1e-9, cbs=fv.EarlyStoppingCallback(monitor="accuracy", patience=1))
    return len(learn.recorder.values) < 6


@check
def nothing_is_printed_without_logging(v):
    for train in (lambda learn: learn.fit(1, 1e-3), lambda learn: train_learner(learn, 1, 1e-3)):
        learn = v.learn()
        with redirect_stdout(io.StringIO()) as out, learn.no_bar(), learn.no_logging():
            train(learn)
        assert not out.getvalue()


@check
def without_validation_images(v):
    learn = v.learn()
    learn.dls.valid.n = 0
    train_learner(learn, 1, 0.01)
    learn.fit_one_cycle(1, 0.01)
    return len(learn.recorder.losses), [row[1] for row in learn.recorder.values]


# Learners -----------------------------------------------------------------------------------------


@check
def metrics_of_ones_own(v):
    return shape(v.fitted(metrics=[fv.accuracy, fv.error_rate, fv.F1Score(average="macro")]))


@check
def a_loss_of_ones_own(v):
    learn = v.fitted(loss_func=fv.LabelSmoothingCrossEntropyFlat())
    return type(learn.loss_func), shape(learn)


@check
def several_labels_an_image(v):
    block = fv.DataBlock((fv.ImageBlock(fv.PILImageBW), fv.MultiCategoryBlock),
                         get_y=lambda file: [file.parent.name],
                         get_items=partial(fv.get_image_files, folders=["training", "testing"]),
                         splitter=fv.GrandparentSplitter("training", "testing"))
    dls = block.dataloaders(v.path, bs=BS, num_workers=0)
    own = {} if v.make_learner is not fastais_learner else {"loss_func": None, "metrics": None}
    learn = v.fitted(dls=dls, **own)
    return type(learn.loss_func), shape(learn)


@check
def a_state_of_fastais_adam(v):
    learn = v.fitted(opt_func=fv.Adam)
    learn.save("adam")
    again = v.learn(opt_func=FusedAdam)
    again.load("adam", with_opt=True)
    again.fit(1, 1e-3)
    return shape(again)


@check
def every_way_to_fit(v):
    learn = v.learn()
    for fit in (learn.fit, learn.fit_one_cycle, learn.fit_flat_cos):
        fit(1, 1e-3)
    learn.fit_sgdr(1, 1, 1e-3)
    learn.fine_tune(1, 1e-3)
    return shape(learn)


@check
def optimisers(v):
    return [shape(v.fitted(opt_func=opt)) for opt in (fv.ranger, fv.SGD, fv.RMSProp, fv.Lamb)]


@check
def learning_rate_finder(v):
    learn = v.learn()
    before = [p.clone() for p in learn.model.parameters()]
    found = learn.lr_find(suggest_funcs=(fv.minimum, fv.steep, fv.valley, fv.slide),
                          show_plot=False)
    return found._fields, all(map(torch.equal, before, learn.model.parameters()))


@check
def answers_in_the_items_order(v):
    learn = v.fitted()
    for split in (0, 1):
        labels = learn.get_preds(ds_idx=split)[1]
        names = [file.parent.name for file in learn.dls[split].dataset.items]
        assert [learn.dls.vocab[int(i)] for i in labels] == names
    return len(labels)


@check
def losses_and_decoded_answers(v):
    x, chances, y, decoded, losses = v.fitted().get_preds(
        with_input=True, with_decoded=True, with_loss=True)
    sums = torch.allclose(chances.sum(1), torch.ones(TEST))
    return x.shape, torch.equal(chances.argmax(1), decoded), losses.shape, sums


@check
def answers_with_augmentation(v):
    learn = v.fitted()
    # There are no random transforms.
    return torch.allclose(learn.tta(n=2)[0], learn.get_preds()[0], atol=1e-4)


@check
def exported_and_loaded(v):
    learn = v.fitted()
    learn.export("it.pkl")
    loaded = fv.load_learner(learn.path / "it.pkl")
    chances = [torch.stack([of.predict(file)[2] for file in v.files()]) for of in (learn, loaded)]
    loaded.dls = v.dls()
    loaded.fit(1, 1e-3)
    return torch.allclose(*chances, atol=1e-5), shape(loaded)


@check
def saved_and_loaded(v):
    learn = v.fitted()
    learn.save("it")
    return torch.equal(learn.get_preds()[0], v.learn().load("it").get_preds()[0])


@check
def copied_and_pickled(v):
    learn = v.fitted()
    copies = copy.deepcopy(learn), pickle.loads(pickle.dumps(learn))
    return [torch.allclose(learn.get_preds()[0], one.get_preds()[0], atol=1e-5) for one in copies]


@check
def interpretation(v):
    found = fv.ClassificationInterpretation.from_learner(v.fitted())
    return int(found.confusion_matrix().sum()), len(found.top_losses(3, items=True))


@check
def half_precision_and_back(v):
    learn = v.learn().to_fp16()
    learn.fit(1, 1e-3)
    learn.to_fp32()
    learn.fit(1, 1e-3)
    return shape(learn)


# Pictures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [
    Image.open, lambda file: Image.open(file).convert("RGB"),
    fv.PILImageBW.create, fv.PILImage.create,
    lambda file: np.asarray(Image.open(file)),
    lambda file: torch.tensor(np.asarray(Image.open(file)))[None] / 255,
    lambda file: file.read_bytes(),
    lambda file: open(file, "rb"), str])  # noqa: SIM115 - closed when it is collected
@pytest.mark.parametrize("name", ["simple, in memory", "simple, from files"])
def test_any_form_of_a_picture_is_as_its_file(name, form, digits, tmp_path):
    learn = Variant(digits, tmp_path, *OURS[name]).fitted()
    file = digits / "testing/7/30.png"
    assert torch.allclose(learn.predict(form(file))[2], learn.predict(file)[2], atol=1e-4)


@pytest.mark.parametrize("kind", ["transparent", "16 bits", "turned"])
def test_an_opened_picture_is_as_its_file(kind, digits, tmp_path):
    learn = Variant(digits, tmp_path, *OURS["simple, in memory"]).fitted()
    grey = np.asarray(Image.open(digits / "testing/7/30.png"))
    image, kwargs = Image.fromarray(grey), {}
    if kind == "transparent":
        image = Image.merge("RGBA", [Image.new("L", image.size, 255)] * 3 + [image])
    elif kind == "16 bits":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        kwargs["exif"] = Image.Exif()
        kwargs["exif"][0x112] = 6
    image.save(tmp_path / "it.png", **kwargs)
    with Image.open(tmp_path / "it.png") as opened:
        assert torch.equal(learn.predict(opened)[2], learn.predict(tmp_path / "it.png")[2])


# Loaders ------------------------------------------------------------------------------------------


def labels(dl): return [int(label) for _, y in dl for label in y]
def labels_of_items(dl): return [dl.vocab.o2i[file.parent.name] for file in dl.dataset.items]


class Black(fv.Transform):
    def encodes(self, x: fv.PILBase): return type(x)(Image.new("L", x.size))


class BlackBatch(fv.Transform):
    order = 90
    def encodes(self, x: fv.TensorImage): return x * 0


@check
def facts_of_loaders(v):
    dls = v.dls()
    x, y = dls.one_batch()
    return (list(dls.vocab), dls.c, dls.n_inp, dls.bs, len(dls.train), len(dls.valid),
            dls.train.n, dls.train.drop_last, type(x), type(y), x.shape, x.dtype, x.stride())


@check
def item_transforms_added_later(v):
    dls, other = v.dls(), v.dls()
    dls.add_tfms([Black()], "after_item")
    black = other.train.new(after_item=[Black(), fv.ToTensor()])
    return [float(dl.one_batch()[0].max()) for dl in (dls.train, black)]


@check
def batch_transforms_added_later(v):
    dls = v.dls()
    dls.add_tfms([BlackBatch()], "after_batch")
    return float(dls.one_batch()[0].max())


@check
def item_transforms(v):
    dls = v.dls(item_tfms=fv.RandomCrop(24))
    a, b = (dls.valid.one_batch()[0] for _ in range(2))
    return dls.one_batch()[0].shape, torch.equal(a, b)


@check
def normalised(v):
    plain = v.dls().valid.one_batch()[0]
    found = v.dls(batch_tfms=fv.Normalize.from_stats([0.1307], [0.3081])).valid.one_batch()[0]
    return torch.allclose(found, (plain - 0.1307) / 0.3081, atol=1e-4)


@check
def a_shuffle_of_ones_own(v):
    dl = v.dls().train.new(shuffle_fn=lambda idxs: sorted(idxs, reverse=True))
    return labels(dl) == labels_of_items(dl)[::-1][:len(dl) * BS]


@check
def other_indices(v):
    new = v.dls().train.new
    return [len(labels(new(get_idxs=lambda idxs=idxs: idxs, shuffle=False, drop_last=False)))
            for idxs in (list(range(64)), list(range(TRAIN)) * 2, [], [5])]


@check
def fewer_items(v):
    dls = v.dls()
    dls.train.n = 64
    return len(labels(dls.train)), len(labels(v.dls().train.new(cls=PartialDL, partial_n=96)))


@check
def weights_of_items(v):
    dl = v.dls().train
    weights = np.array([1.0 if file.parent.name == "3" else 0.0 for file in dl.dataset.items])
    return set(labels(dl.new(cls=WeightedDL, wgts=weights)))


@check
def other_batches(v):
    dl = v.dls().train
    return len(dl.new(bs=8)), labels(dl.new(shuffle=False, drop_last=False)) == labels_of_items(dl)


@check
def another_device(v):
    dls = v.dls()
    dls.train.device = torch.device("meta")
    return [t.device.type for t in dls.train.one_batch()]


@check
def items_that_changed(v):
    dl = v.dls().valid
    before = dl.dataset.items[0]
    dl.dataset.items[0] = next(file for file in dl.dataset.items if file.parent != before.parent)
    return labels(dl)[0] == labels_of_items(dl)[0] != dl.vocab.o2i[before.parent.name]


@check
def two_passes_at_once(v):
    dl = v.dls().valid
    return sum(len(batch[1]) for pair in zip(dl, dl, strict=True) for batch in pair)


@check
def pickled_loaders(v):
    dls = pickle.loads(pickle.dumps(v.dls()))
    return dls.one_batch()[0].shape, len(dls.new_empty().train_ds)


@check
def shown(v):
    dls = v.dls()
    dls.show_batch(max_n=4)
    dls.show_batch(unique=True)
    v.learn(dls).show_results(max_n=4)
    fv.plt.close("all")
    return len(dls.decode_batch(dls.one_batch(), max_n=3))


@check
def unseen_pictures(v):
    dl = v.dls().test_dl(v.files(), with_labels=True, bs=8)
    return [len(y) for _, y in dl], labels(dl)


@check
def seeded_twice(v):
    found = []
    for _ in range(2):
        fv.set_seed(3)
        random.seed(3)
        found.append(torch.cat([p.flatten() for p in v.fitted().model.parameters()]))
    return torch.equal(*found)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("function", CHECKS,
                         ids=lambda function: function.__name__.replace("_", " "))
def test_as_with_fastais_own(function, name, digits, tmp_path, references):
    assert function(Variant(digits, tmp_path, *OURS[name])) == references(function)
