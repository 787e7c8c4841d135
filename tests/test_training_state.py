import json
import random

import numpy as np
import torch
from fastcore.foundation import L

from digitfast.training.state import pack, set_random_state, take_random_state, unpack


def test_the_generators_draw_the_same_numbers_again():
    tensors = {}
    kept = pack({"random": take_random_state()}, tensors)
    drawn = [random.random(), np.random.rand(), torch.rand(1)]
    set_random_state(unpack(kept, tensors)["random"])
    assert drawn == [random.random(), np.random.rand(), torch.rand(1)]


def test_what_is_packed_is_json_and_comes_back():
    state = {"state": [{"mean": torch.ones(2), "step": torch.tensor(3), "do_wd": False}, {}],
             "hypers": L({"lr": np.float64(0.1), "tensor": None}),
             "slow": (torch.zeros(1), "a", float("inf"))}
    tensors = {}
    again = unpack(json.loads(json.dumps(pack(state, tensors))), tensors)
    assert torch.equal(again["state"][0]["mean"], torch.ones(2)) and len(tensors) == 3
    assert again["state"][1] == {} and again["state"][0]["do_wd"] is False
    assert again["hypers"] == [{"lr": 0.1, "tensor": None}]
    assert again["slow"][1:] == ["a", float("inf")]
