import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from test_array_files import KAGGLE, LABELS, PIXELS, write_idx, write_table
from test_folders import folder_of

from digitfast import digit_dls, evaluate_learner, simple_learner, train_learner
from digitfast.data.facts import held_out_images, source_facts
from digitfast.data.forms import evaluation_digits, in_parts, open_digits
from digitfast.data.images import item_label
from digitfast.data.labelled import LabelledImages
from digitfast.errors import BadData, DataNotFound


@pytest.fixture(scope="module")
def arrays(digits):
    "The small digits as arrays: images and labels, of training and of test."
    dls = digit_dls(digits, bs=32)
    return tuple(x.numpy() for dl in dls.loaders for x in (dl.pixels, dl.labels))


def test_loaders_from_arrays_are_those_of_the_files(digits, arrays):
    files, memory = (digit_dls(source, bs=32, seed=1) for source in (digits, arrays))
    assert torch.equal(files.train.pixels, memory.train.pixels)
    assert torch.equal(files.valid.labels, memory.valid.labels)
    assert list(files.vocab) == list(memory.vocab)
    assert memory.checksum() == digit_dls(arrays).checksum() != files.checksum()


@pytest.mark.parametrize("resident", [True, False])
def test_items_from_arrays(arrays, resident):
    dls = digit_dls(arrays, bs=30, resident=resident, num_workers=0)
    image, label = dls.valid_ds[0]
    assert np.array_equal(np.asarray(image), arrays[2][0])
    assert dls.vocab[label] == str(arrays[3][0])
    x, y = dls.valid.one_batch()
    assert np.array_equal((x * 255).round().numpy()[:, 0], arrays[2][:len(x)])
    assert y.tolist() == arrays[3][:len(y)].tolist()


def test_arrays_leave_nothing_on_the_disk(arrays, fastai_home):
    before = sorted(fastai_home.rglob("*"))
    digit_dls(arrays, bs=32)
    assert sorted(fastai_home.rglob("*")) == before


@pytest.mark.parametrize("size", [16, 40])
def test_arrays_of_another_size(arrays, digits, size):
    memory = digit_dls(arrays, bs=32, size=size)
    assert torch.equal(memory.train.pixels, digit_dls(digits, bs=32, size=size).train.pixels)


def test_without_a_split_a_tenth_is_held_out(arrays, digits):
    for source in (arrays[:2], digits / "training"):
        with pytest.warns(UserWarning, match="has no split; 10% of its images, chosen by the seed"):
            dls = digit_dls(source, bs=32, seed=1)
        assert (len(dls.train_ds), len(dls.valid_ds)) == (270, 30)
        assert (dls.holdout, dls.validated_on) == (0.1, "held-out training images")
        assert set(map(item_label, dls.train_ds.items)) == set("0123456789")


def test_held_out_images_are_the_same_again(digits):
    dls = digit_dls(digits / "training", bs=32, holdout=0.2, seed=3)
    again = held_out_images(digits / "training", holdout=0.2, seed=3)
    assert np.array_equal(again.pixels, dls.valid.pixels.numpy())
    other = held_out_images(digits / "training", holdout=0.2, seed=4)
    assert not np.array_equal(again.pixels, other.pixels)


@pytest.fixture
def folder(tmp_path):
    "An empty folder."
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def fill_with_table(folder):
    write_table(folder / "train.csv", ["label", *KAGGLE])
    write_table(folder / "test.csv", KAGGLE, labels=None)


def fill_with_npz(folder):
    np.savez(folder / "mnist.npz", x_train=PIXELS, y_train=LABELS)


@pytest.mark.parametrize("fill", [write_idx, fill_with_table, fill_with_npz])
@pytest.mark.parametrize("pack", ["", "zip", "gztar", "xztar"])
def test_files_of_arrays_in_folders_and_archives(folder, fill, pack, tmp_path):
    fill(folder)
    source = shutil.make_archive(tmp_path / "packed", pack, folder) if pack else folder
    found = open_digits(source)
    assert isinstance(found, LabelledImages)
    assert np.array_equal(found.pixels[:6], PIXELS)


@pytest.mark.parametrize("file, fill", [
    ("train.csv", fill_with_table), ("mnist.npz", fill_with_npz),
    ("train-images-idx3-ubyte", write_idx)])
def test_files_of_arrays_by_name(folder, file, fill):
    fill(folder)
    assert np.array_equal(open_digits(str(folder / file)).pixels[:6], PIXELS)


def test_an_archive_of_one_table(folder, tmp_path):
    write_table(folder / "any.csv")
    assert len(open_digits(shutil.make_archive(tmp_path / "packed", "zip", folder))) == 6


def test_an_archive_of_a_folder(copy_of_digits, tmp_path):
    archive = shutil.make_archive(tmp_path / "packed", "zip", tmp_path, "digits")
    assert len(digit_dls(archive, bs=32).train_ds) == 300


def test_an_archive_of_class_folders(copy_of_digits, tmp_path):
    archive = shutil.make_archive(tmp_path / "packed", "zip", copy_of_digits / "training")
    assert open_digits(archive).name.startswith("packed")


def test_an_archive_does_not_write_outside(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../../../outside.png", "x")
        archive.writestr("training/7/a.png", "x")
    open_digits(tmp_path / "bad.zip")
    assert not list(tmp_path.rglob("outside.png"))


def test_parts_of_mnist(mnist):
    tiny = open_digits("mnist-tiny")
    assert tiny.counts() == {"training": dict.fromkeys("0123456789", 50),
                             "testing": dict.fromkeys("0123456789", 20)}
    sample = open_digits("mnist-sample")
    assert sample.counts() == {"training": {"3": 6131, "7": 6265},
                               "testing": {"3": 1010, "7": 1028}}


@pytest.mark.parametrize("source", [7, None, (1, 2, 3), [], object()])
def test_sources_that_are_none(source):
    with pytest.raises(BadData, match="is no source of digits; allowed are"):
        open_digits(source)


def test_a_missing_source_names_all_forms(tmp_path):
    with pytest.raises(DataNotFound, match="does not exist. Allowed: mnist, .*svhn.*csv.*npz"):
        open_digits(tmp_path / "absent.csv")


def test_facts_of_arrays(folder):
    write_idx(folder)
    facts = source_facts(folder)
    assert facts["counts"] == {"training": {"2": 3, "4": 3}, "testing": {"2": 3, "4": 3}}
    assert facts["bytes"] == 12 * 784


def test_facts_of_class_folders(digits):
    assert source_facts(digits / "testing")["counts"] == {"": dict.fromkeys("0123456789", 12)}


@pytest.mark.parametrize("splits, evaluated", [
    (("training", "testing"), "testing"), (("train", "valid", "test"), "test"),
    (("train", "val"), "val"), (("test",), "test"), ((), "")])
def test_what_is_evaluated(tmp_path, splits, evaluated):
    folder_of(tmp_path, *splits, *([] if splits else ["."]))
    assert evaluation_digits(str(tmp_path)) == tmp_path / evaluated


def test_training_images_alone_are_not_evaluated(tmp_path):
    with pytest.raises(BadData, match="no training and validation split"):
        evaluation_digits(str(folder_of(tmp_path, "train")))


def test_parts(digits, arrays):
    assert in_parts(digits) == [digits / "training", digits / "testing"]
    training, valid = in_parts(open_digits(arrays))
    assert np.array_equal(training.pixels, arrays[0])
    assert np.array_equal(valid.pixels, arrays[2])
    assert in_parts(digits / "training") == [digits / "training"]


def test_class_folders_beside_a_table_stay_a_folder(copy_of_digits):
    write_table(copy_of_digits / "training/train.csv")
    assert open_digits(copy_of_digits / "training") == copy_of_digits / "training"


def test_a_home_folder_that_is_not_there():
    with pytest.raises(DataNotFound, match="'~nobody_of_that_name/x' does not exist"):
        open_digits("~nobody_of_that_name/x")


def test_held_out_images_have_the_size_of_the_network(digits):
    assert held_out_images(digits / "training", size=40).pixels.shape[1:] == (40, 40)


@pytest.mark.parametrize("of_learner", ["files", "memory"])
@pytest.mark.parametrize("source", ["files", "memory"])
def test_a_learner_is_evaluated_on_any_form(digits, arrays, of_learner, source):
    forms = {"files": digits, "memory": arrays}
    learn = train_learner(simple_learner(digit_dls(forms[of_learner], bs=32)), 3, 0.01)
    own = evaluate_learner(learn)
    other = evaluate_learner(learn, forms[source])
    assert np.array_equal(own.confusion, other.confusion)
    assert abs(own.loss - other.loss) < 1e-5
    file = next((digits / "testing/7").iterdir())
    assert learn.predict(file)[0] == learn.predict(np.asarray(Image.open(file)))[0]
