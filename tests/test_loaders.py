import os
import random
import shutil

import numpy as np
import pytest
import torch
from fastai.data.transforms import Normalize, get_image_files
from fastai.torch_core import set_seed
from fastai.vision.core import TensorImage, imagenet_stats
from fastai.vision.data import ImageDataLoaders
from fastai.vision.learner import vision_learner
from fastai.vision.models import resnet18
from fasttransform import Transform
from PIL import Image
from torch.nn.utils import parameters_to_vector

from digitfast import simple_learner
from digitfast.data import loaders
from digitfast.data.dataloaders import DigitDataLoaders
from digitfast.data.facts import source_facts
from digitfast.data.loaders import digit_dls
from digitfast.data.resident import ResidentDL
from digitfast.errors import BadData, BadImage, BadSetting, DataNotFound


@pytest.fixture(scope="module", params=[True, False], ids=["resident", "files"])
def dls(digits, request):
    return digit_dls(digits, bs=32, num_workers=0, resident=request.param)


def test_batches(dls, digits):
    x, y = dls.one_batch()
    assert isinstance(dls, ImageDataLoaders)
    assert dls.path == digits
    assert x.shape == (32, 1, 28, 28)
    assert x.dtype == torch.float32
    assert x.min() == 0
    assert 0.9 < x.max() <= 1
    assert y.shape == (32,)
    assert list(dls.vocab) == list("0123456789")
    assert dls.c == 10
    assert (len(dls.train_ds), len(dls.valid_ds)) == (300, 120)
    assert {f.parent.parent.name for f in dls.train_ds.items} == {"training"}
    assert {f.parent.parent.name for f in dls.valid_ds.items} == {"testing"}


def test_pixels_are_the_files(dls):
    x = torch.cat([x for x, _ in dls.valid])
    for file, pixels in zip(dls.valid_ds.items, x, strict=True):
        levels = (pixels[0].cpu() * 255).round().numpy()
        assert np.array_equal(np.asarray(Image.open(file)), levels)


@pytest.mark.parametrize("other", ["valid", "val", "test"])
def test_other_names_of_splits(copy_of_digits, other):
    (copy_of_digits / "training").rename(copy_of_digits / "train")
    (copy_of_digits / "testing").rename(copy_of_digits / other)
    assert len(digit_dls(copy_of_digits, num_workers=0).valid_ds) == 120


def test_holdout_comes_from_training_only(digits):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    held = digit_dls(digits, holdout=0.2, num_workers=0)
    assert torch.equal(torch.get_rng_state(), state)
    train, valid = set(held.train_ds.items), set(held.valid_ds.items)
    assert (len(train), len(valid)) == (240, 60)
    assert not train & valid
    assert {f.parent.parent.name for f in train | valid} == {"training"}
    assert held.path == digits
    assert set(digit_dls(digits, holdout=0.2, num_workers=0).valid_ds.items) == valid
    assert set(digit_dls(digits, holdout=0.2, seed=1, num_workers=0).valid_ds.items) != valid


def test_holdout_needs_no_test_split(copy_of_digits):
    (copy_of_digits / "testing").rename(copy_of_digits / "elsewhere")
    assert len(digit_dls(copy_of_digits, holdout=0.1, num_workers=0).valid_ds) == 30
    with pytest.raises(BadData, match="elsewhere, training.*training/ and testing/"):
        digit_dls(copy_of_digits)


def test_test_dl_takes_any_form_in_order(dls, digits):
    files = [digits / f"testing/{d}/30.png" for d in (3, 1, 2)]
    wanted = torch.stack([torch.tensor(np.asarray(Image.open(f))) for f in files]).float() / 255
    arrays = [np.asarray(Image.open(f)) for f in files]
    for items in (files, [str(f) for f in files], [Image.open(f) for f in files], arrays,
                  np.stack(arrays), torch.tensor(np.stack(arrays)),
                  [f.read_bytes() for f in files]):
        x, = dls.test_dl(items, num_workers=0).one_batch()
        assert torch.allclose(x[:, 0].cpu().as_subclass(torch.Tensor), wanted)
    for single in (files[0], str(files[0]), arrays[0], arrays[0][..., None], Image.open(files[0])):
        assert dls.test_dl(single, num_workers=0).one_batch()[0].shape == (1, 1, 28, 28)
    folder = dls.test_dl(digits / "testing/3", with_labels=True, num_workers=0)
    assert len(folder.dataset) == 12
    assert folder.one_batch()[1].tolist() == [3] * 12


def test_other_sizes(dls, copy_of_digits):
    wide = dls.test_dl([np.zeros((50, 100))], num_workers=0)
    assert wide.one_batch()[0].shape == (1, 1, 28, 28)
    larger = digit_dls(copy_of_digits, bs=64, size=40, num_workers=0)
    assert larger.one_batch()[0].shape == (64, 1, 40, 40)


def test_show_batch_is_black_on_white(dls):
    import matplotlib.pyplot as plt
    dls.show_batch(max_n=4)
    image = plt.gcf().axes[0].images[0]
    assert image.get_cmap().name == "Greys"
    assert plt.gcf().axes[0].get_title() in dls.vocab
    dls.show_batch(max_n=4, unique=True)
    assert len({ax.get_title() for ax in plt.gcf().axes}) == 1
    plt.close("all")


def test_missing_folder_split_and_class(copy_of_digits, tmp_path):
    with pytest.raises(DataNotFound, match="absent.*does not exist. Allowed: mnist"):
        digit_dls(tmp_path / "absent")
    with pytest.raises(BadData, match="no class folders"):
        (tmp_path / "empty/training").mkdir(parents=True)
        (tmp_path / "empty/testing").mkdir()
        digit_dls(tmp_path / "empty")
    for file in (copy_of_digits / "testing/3").iterdir():
        file.unlink()
    with pytest.raises(BadData, match="testing/3 is empty"):
        digit_dls(copy_of_digits)
    (copy_of_digits / "testing/3").rename(copy_of_digits / "testing/three")
    shutil.copyfile(copy_of_digits / "testing/2/30.png", copy_of_digits / "testing/three/a.png")
    with pytest.raises(BadData, match="have different classes; only one has: 3, three"):
        digit_dls(copy_of_digits)


def test_files_that_are_no_images(copy_of_digits):
    folder = copy_of_digits / "training/7"
    (folder / ".DS_Store").write_text("")
    (folder / "Thumbs.db").write_text("")
    digit_dls(copy_of_digits, num_workers=0)
    (folder / "notes.txt").write_text("")
    with pytest.raises(BadData, match="training/7/notes.txt is not an image"):
        digit_dls(copy_of_digits)
    (folder / "notes.txt").rename(folder / "notes.png")
    with pytest.raises(BadImage, match="training/7/notes.png"):
        digit_dls(copy_of_digits)
    with pytest.raises(BadImage, match="training/7/notes.png"):
        list(digit_dls(copy_of_digits, num_workers=0, resident=False).train)


def test_a_class_without_test_images(copy_of_digits):
    (copy_of_digits / "testing/3").rename(copy_of_digits / "3")
    with pytest.raises(BadData, match="only one has: 3"):
        digit_dls(copy_of_digits)


def test_an_image_beside_the_class_folders(copy_of_digits):
    (copy_of_digits / "training/3/0.png").rename(copy_of_digits / "training/0.png")
    for holdout in (0, 0.1):
        with pytest.raises(BadData, match="training/0.png is not in a class folder"):
            digit_dls(copy_of_digits, holdout=holdout)


@pytest.mark.parametrize("size", [0, -3, 10_000_000])
def test_bad_size(digits, size):
    with pytest.raises(BadSetting, match=f"size must be 1 to 1024 .*, not {size}$"):
        digit_dls(digits, size=size)


@pytest.mark.parametrize(("holdout", "words"), [
    (-0.1, "holdout must be .*, not -0.1$"), (1, "holdout must be .*, not 1$"),
    (20, "holdout must be .*, not 20$"), (0.0001, "holdout=0.0001 of 300 .*use a larger part")])
def test_bad_holdout(digits, holdout, words):
    with pytest.raises(BadSetting, match=words):
        digit_dls(digits, holdout=holdout)


@pytest.mark.parametrize(("bs", "words"), [
    (0, "bs must .*not 0"), (-3, "bs must .*not -3"), (301, "bs=301 is more than the 300 ")])
def test_bad_batch_size(digits, bs, words):
    with pytest.raises(BadSetting, match=words):
        digit_dls(digits, bs=bs)


@pytest.fixture(scope="module")
def both(digits):
    "The same loaders resident and from files."
    return [digit_dls(digits, bs=32, num_workers=0, resident=resident)
            for resident in (True, False)]


def test_resident_batches_equal_those_of_files(both, digits):
    from fastai.vision.core import PILImageBW
    from fastai.vision.data import ImageDataLoaders
    fastais = ImageDataLoaders.from_folder(digits, train="training", valid="testing",
                                           img_cls=PILImageBW, bs=32, val_bs=128, num_workers=0)
    for split in (0, 1):
        idxs = torch.randperm(len(both[0][split].dataset)).tolist()
        names = list(both[0][split].dataset.items)
        # fastai's are in the order of the listing
        place = {file: i for i, file in enumerate(fastais[split].dataset.items)}
        theirs = [place[names[i]] for i in idxs]
        batches = [list(loaders[split].new(get_idxs=lambda idxs=idxs: idxs, shuffle=False,
                                           drop_last=False))
                   for loaders, idxs in ((both[0], idxs), (both[1], idxs), (fastais, theirs))]
        for ours, files, theirs in zip(*batches, strict=True):
            assert type(ours[0]) is type(files[0])
            assert type(ours[1]) is type(files[1])
            assert ours[0].stride() == theirs[0].stride()
            for other in (files, theirs):
                assert torch.equal(ours[0].cpu(), other[0].cpu())
                assert torch.equal(ours[1].cpu(), other[1].cpu())


def test_resident_loader_shuffles_drops_and_repeats_with_the_seed(both):
    from fastai.torch_core import set_seed
    train, valid = both[0].loaders
    assert isinstance(train, ResidentDL)
    assert len(train) == 9
    assert len(valid) == 1
    first, second = (torch.cat([y for _, y in train]) for _ in range(2))
    assert len(first) == 9 * 32
    assert not torch.equal(first, second)
    labels = [int(f.parent.name) for f in valid.dataset.items]
    assert torch.cat([y for _, y in valid]).tolist() == labels

    def order():
        set_seed(3)
        return [y.tolist() for _, y in digit_dls(both[0].path, bs=32).train]
    assert order() == order()


def test_get_preds_in_order_and_top_losses_by_name(both, trained):
    from fastai.interpret import Interpretation
    with trained.no_bar(), trained.no_logging():
        probabilities, labels = trained.get_preds(dl=both[0].train)
        again, _ = trained.get_preds(dl=both[1].train)
        assert len(labels) == 300
        assert torch.allclose(probabilities, again, atol=1e-6)
        assert labels.tolist() == [int(f.parent.name) for f in both[0].train_ds.items]
        interpretation = Interpretation.from_learner(trained)
        losses, _, items = interpretation.top_losses(3, items=True)
        pictures = trained.dls.test_dl(list(items), with_labels=True, num_workers=0)
        assert torch.allclose(trained.get_preds(dl=pictures, with_loss=True)[2], losses, atol=1e-5)


def test_batch_transforms_see_training_batches_only(digits):
    from fastai.vision.augment import Rotate
    dls = digit_dls(digits, bs=32, batch_tfms=Rotate(max_deg=10, p=1))
    plain = digit_dls(digits, bs=32)
    # fastai turns validation images by 0°, which rounds them
    assert torch.allclose(dls.valid.one_batch()[0], plain.valid.one_batch()[0], atol=1e-4)
    same_order = {"get_idxs": lambda: list(range(300)), "shuffle": False}
    turned, straight = (loaders.train.new(**same_order).one_batch()[0]
                        for loaders in (dls, plain))
    assert not torch.allclose(turned, straight, atol=0.1)


def test_resident_or_not(digits, monkeypatch):
    from fastai.vision.augment import RandomCrop

    from digitfast.data import loaders
    assert isinstance(digit_dls(digits).train, ResidentDL)
    assert not isinstance(digit_dls(digits, item_tfms=RandomCrop(24)).train, ResidentDL)
    with pytest.raises(BadSetting, match="batch_tfms"):
        digit_dls(digits, item_tfms=RandomCrop(24), resident=True)
    monkeypatch.setattr(loaders, "RESIDENT_BYTES", 1000)
    assert not isinstance(digit_dls(digits).train, ResidentDL)


def test_checksum_sees_pixels_and_names(copy_of_digits):
    before = source_facts(copy_of_digits)
    assert before["bytes"] == sum(f.stat().st_size for f in copy_of_digits.rglob("*.png"))
    assert digit_dls(copy_of_digits).checksum() == before["sha256"]
    image = copy_of_digits / "training/0/0.png"
    Image.open(image).save(image, compress_level=0)  # other bytes, the same pixels
    assert source_facts(copy_of_digits)["sha256"] == before["sha256"]
    image.rename(image.with_name("00.png"))
    assert source_facts(copy_of_digits)["sha256"] != before["sha256"]


def test_checksum_sees_order_and_splits(digits):
    held = [digit_dls(digits, holdout=0.2, seed=seed, num_workers=0) for seed in (1, 2)]
    assert len({dls.checksum() for dls in (*held, digit_dls(digits))}) == 3
    swapped = DigitDataLoaders(*held[0].loaders[::-1], path=held[0].path)
    assert swapped.checksum() != held[0].checksum()
    assert held[0].checksum() == digit_dls(digits, holdout=0.2, seed=1).checksum()


@pytest.fixture
def listed_backwards(monkeypatch):
    "A function after which folders are listed in another order, as by another file system."
    walk = os.walk
    listdir = os.listdir

    def backwards():
        def walk_back(*args, **kwargs):
            for root, folders, files in walk(*args, **kwargs):
                folders[:] = sorted(folders, reverse=True)
                yield root, folders, sorted(files, reverse=True)
        monkeypatch.setattr(os, "walk", walk_back)
        monkeypatch.setattr(os, "listdir", lambda *args: sorted(listdir(*args), reverse=True))
    return backwards


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("holdout", [0.0, 0.2])
def test_the_order_of_a_listing_changes_nothing(digits, listed_backwards, resident, holdout):
    found = []
    for other in (lambda: None, listed_backwards):
        other()
        dls = digit_dls(digits, bs=32, holdout=holdout, seed=7, resident=resident, num_workers=0)
        learn = simple_learner(dls)
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 0.01)
        found.append(([list(dl.dataset.items) for dl in dls.loaders], dls.checksum(),
                      list(dls.vocab), parameters_to_vector(learn.model.parameters()).tolist()))
    assert get_image_files(digits / "training")[0] > found[0][0][0][0]  # the order has changed
    assert found[0] == found[1]


def test_the_generators_are_left_as_they_are(digits):
    states = []
    for make in (lambda: None, lambda: digit_dls(digits),
                 lambda: digit_dls(digits, holdout=0.2, num_workers=0)):
        set_seed(5)
        make()
        states.append((random.random(), torch.rand(1).item(), np.random.rand()))
    assert states[0] == states[1] == states[2]


def test_a_seed_settles_weights_and_order(digits):
    def trained(**seed):
        learn = simple_learner(digit_dls(digits, bs=32, **seed))
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 0.01)
        return parameters_to_vector(learn.model.parameters()).tolist()
    set_seed(1)
    assert trained(seed=3) == trained(seed=3) != trained(seed=4)
    assert trained() != trained()


def test_set_seed_settles_the_order_of_loaders_that_were_made_before(dls):
    orders = []
    for seed in (1, 1, 2):
        set_seed(seed)
        orders.append(torch.cat([y for _, y in dls.train]).tolist())
    assert orders[0] == orders[1] != orders[2]


def test_statistics_of_colour_images_are_refused(digits):
    with pytest.raises(BadSetting, match="3 channels.*n_in=1"):
        digit_dls(digits, batch_tfms=Normalize.from_stats(*imagenet_stats))
    dls = digit_dls(digits, bs=32)
    with pytest.raises(BadSetting, match="3 channels"):
        vision_learner(dls, resnet18)
    assert dls.one_batch()[0].shape[1] == 1
    dls = digit_dls(digits, bs=32, batch_tfms=[Thrice(), Normalize.from_stats(*imagenet_stats)])
    assert dls.one_batch()[0].shape[1] == 3  # a user's own transform may do so


class Thrice(Transform):
    order = 50
    def encodes(self, x: TensorImage): return x.repeat(1, 3, 1, 1)


def test_devices_by_name(digits, monkeypatch):
    assert digit_dls(digits, num_workers=0, device="cpu").device == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in ("cuda:7", "cpux"):
        with pytest.raises(BadSetting, match=f"device='{name}' is not on this machine; it has cpu"):
            digit_dls(digits, device=name)


def test_images_stay_out_of_a_gpu_that_is_full(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (400, 10**9))
    assert loaders._resident_limit(torch.device("cuda", 0)) == 100
    assert loaders._resident_limit(torch.device("cpu")) == loaders.RESIDENT_BYTES


def test_facts_of_three_splits_name_each(copy_of_digits):
    (copy_of_digits / "training").rename(copy_of_digits / "train")
    (copy_of_digits / "testing").rename(copy_of_digits / "test")
    shutil.copytree(copy_of_digits / "test", copy_of_digits / "valid")
    counts = source_facts(str(copy_of_digits))["counts"]
    images = {split: sum(by_class.values()) for split, by_class in counts.items()}
    assert images == {"train": 300, "valid": 120, "test": 120}


@pytest.mark.parametrize("change", [
    lambda dls: dls.add_tfms([Transform(lambda samples: samples)], "before_batch"),
    lambda dls: setattr(dls, "train", dls.train.new(create_batch=dls.train.create_batch)),
    lambda dls: setattr(dls, "train", dls.train.new(create_item=dls.train.create_item)),
    lambda dls: dls.train_ds.tls[0].tfms.add(Transform(lambda image: image)),
    lambda dls: setattr(dls.train_ds.tls[1], "items", list(dls.train_ds.tls[1].items)[::-1]),
], ids=["before_batch", "create_batch", "create_item", "pictures", "labels"])
def test_what_is_changed_about_items_is_done_from_their_files(digits, change):
    dls = digit_dls(digits, bs=32, num_workers=0)
    assert not dls.train.reads_files()
    change(dls)
    assert dls.train.reads_files()


def test_numpys_numbers(digits):
    dls = digit_dls(digits, bs=np.int64(32), seed=np.int64(3), num_workers=0)
    assert len(dls.one_batch()[0]) == 32


@pytest.mark.parametrize("bs", [0, "64", 1.5, None])
def test_batch_sizes(digits, bs):
    with pytest.raises(BadSetting, match="bs must be a whole number of at least 1, not"):
        digit_dls(digits, bs=bs)


def test_a_holdout_that_takes_all_of_a_class(copy_of_digits):
    for file in sorted((copy_of_digits / "training/3").iterdir())[1:]:
        file.unlink()
    with pytest.raises(BadSetting, match="holdout=0.9 leaves no training image of .*3"):
        for seed in range(9):  # nine in ten of them hold it out
            digit_dls(copy_of_digits, bs=2, holdout=0.9, seed=seed, num_workers=0)
