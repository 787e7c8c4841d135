import copy

import pytest
import torch
from fastai.learner import load_learner

from digitfast import BadSetting, BasicOptim, FusedAdam, digit_dls, simple_learner, simple_net


@pytest.fixture
def learn(digits, tmp_path):
    dls = digit_dls(digits, bs=32, device="cpu")
    return simple_learner(dls, opt_func=BasicOptim, path=tmp_path)


def test_equal_to_torchs_sgd_step_by_step():
    torch.manual_seed(0)
    ours = simple_net()
    theirs = copy.deepcopy(ours)
    basic = BasicOptim(list(ours.parameters()), lr=0.1)
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0)
    for _ in range(20):
        x, y = torch.rand(16, 1, 28, 28), torch.randint(10, (16,))
        for net, opt in ((ours, basic), (theirs, sgd)):
            torch.nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
            opt.zero_grad()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(p, q)


def test_trains_in_every_way_of_a_learner(learn):
    with learn.no_bar(), learn.no_logging():
        before = learn.validate()[0]
        learn.fit(2, 0.1)
        learn.fit_one_cycle(2, 0.2)
        assert learn.validate()[0] < before
        learn.lr_find(show_plot=False, num_it=20)


def test_state_is_saved_and_loaded(learn, digits, tmp_path):
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.05)
        learn.save("kept", with_opt=True)
        dls = digit_dls(digits, device="cpu")
        other = simple_learner(dls, opt_func=BasicOptim, path=tmp_path)
        other.create_opt()
        other.load("kept", with_opt=True)
        assert other.opt.hypers == learn.opt.hypers
        assert other.opt.hypers[0]["lr"] == 0.05
        learn.export("basic.pkl")
    loaded = load_learner(tmp_path / "basic.pkl")
    assert loaded.opt_func is BasicOptim
    assert all(torch.equal(p, q) for p, q
               in zip(loaded.model.parameters(), learn.model.parameters(), strict=True))


def test_frozen_parameters_stay():
    net = simple_net()
    first = list(net[1].parameters())
    rest = [p for layer in net[3:] for p in layer.parameters()]
    opt = BasicOptim([first, rest], lr=0.1)
    opt.freeze()
    before = [p.clone() for p in first + rest]
    out = net(torch.rand(8, 1, 28, 28))
    torch.nn.functional.cross_entropy(out, torch.zeros(8, dtype=int)).backward()
    opt.step()
    same = [torch.equal(p, q) for p, q in zip(first + rest, before, strict=True)]
    assert same[:2] == [True, True] and not all(same[2:])


def test_groups_have_their_own_rates():
    a, b = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    opt = BasicOptim([[a], [b]], lr=slice(0.1, 0.2))
    (a + b).backward()
    opt.step()
    assert torch.allclose(torch.stack([a, b]).flatten(), torch.tensor([0.9, 0.8]))


def test_momentum_is_refused_not_ignored():
    with pytest.raises(BadSetting, match="no momentum"):
        BasicOptim([torch.nn.Parameter(torch.ones(1))], lr=0.1, mom=0.9)


def test_weight_decay_is_refused_not_ignored(learn):
    with pytest.raises(BadSetting, match="no weight decay"):
        learn.fit(1, wd=0.1)
    with pytest.raises(BadSetting, match="no weight decay"):
        BasicOptim([torch.nn.Parameter(torch.ones(1))], lr=0.1, wd=0.1)


@pytest.mark.parametrize("train_bn_and_bias", [True, False])
def test_fused_adam_is_fastais_adam(train_bn_and_bias):
    "In double precision, with two groups, discriminative rates and scheduled momentum."
    from fastai.optimizer import Adam
    from fastai.torch_core import norm_bias_params
    torch.manual_seed(0)
    ours = simple_net().double()
    theirs = copy.deepcopy(ours)
    opts = []
    for net, opt_func in ((ours, FusedAdam), (theirs, Adam)):
        groups = [list(net[1].parameters()), list(net[3:].parameters())]
        opt = opt_func(groups, lr=slice(1e-3, 1e-2), wd=0.1)
        for p in norm_bias_params(net, True) if train_bn_and_bias else []:
            opt.state[p]["do_wd"] = False
        opts.append((net, opt))
    for i in range(15):
        x, y = torch.rand(16, 1, 28, 28).double(), torch.randint(10, (16,))
        for net, opt in opts:
            opt.set_hypers(mom=0.95 - i / 100)
            torch.nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
            opt.zero_grad()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(p, q, rtol=0, atol=1e-6)


def test_fused_adam_goes_on_from_a_saved_state(digits, tmp_path):
    def learner():
        dls = digit_dls(digits, bs=32, device="cpu")
        return simple_learner(dls, opt_func=FusedAdam, path=tmp_path)
    first, second = learner(), learner()
    with first.no_bar(), first.no_logging(), second.no_bar(), second.no_logging():
        first.fit(1, 0.01)
        first.save("kept")
        second.create_opt()
        second.load("kept")
    batch = [t.as_subclass(torch.Tensor) for t in first.dls.one_batch()]
    for learn in (first, second):
        torch.nn.functional.cross_entropy(learn.model(batch[0]), batch[1]).backward()
        learn.opt.step()
    assert all(torch.equal(p, q) for p, q
               in zip(first.model.parameters(), second.model.parameters(), strict=True))
