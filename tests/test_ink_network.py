"""The network that finds ink looks twice: at the whole picture, and closely where there is any."""
import numpy as np
import pytest
from PIL import Image, ImageDraw

from digitfast.reading import ink_network
from digitfast.reading.ink_network import network_ink


def test_a_large_picture_is_looked_at_closely_only_where_there_is_ink(monkeypatch):
    looked_at, chances = [], ink_network.ink_chances
    monkeypatch.setattr(
        ink_network, "ink_chances", lambda grey: looked_at.append(grey.size) or chances(grey)
    )
    large = np.full((1500, 2000), 225, np.uint8)
    page = Image.new("L", (600, 450), 225)
    ImageDraw.Draw(page).line([(200, 120), (320, 120), (240, 330)], fill=40, width=6)
    large[1000:1450, 1300:1900] = page
    found = network_ink(large) > 0.5
    assert (found & (large < 225)).sum() / (found | (large < 225)).sum() > 0.6
    assert len(looked_at) > 1 and sum(looked_at[1:]) < 0.2 * large.size


def test_ink_that_is_sure_nowhere_is_none_but_faint_ends_of_sure_ink_stay():
    ink = np.zeros((40, 60), np.float32)
    ink[10:30, 10:12], ink[20:30, 10:12] = 1, 0.4  # a stroke that fades
    ink[5:35, 50:53] = 0.8  # the edge of a desk
    sure = ink_network._sure(ink)
    assert np.array_equal(sure[:, :40], ink[:, :40]) and not sure[:, 45:].any()
    assert np.array_equal(ink_network._sure(ink[:, 40:]), ink[:, 40:])  # alone it is all there is
    assert not ink_network._sure(np.zeros((40, 60), np.float32)).any()


@pytest.mark.parametrize("written", [True, False])
def test_what_is_seen_only_from_near_by_is_no_ink_where_there_is_other(written, monkeypatch):
    "As the grain of wood is; writing that is too thin to be seen from afar is all there is."
    def chances(grey):
        ink = np.zeros(grey.shape, np.float32)
        ink[:, -4:] = written
        ink[:9, :40] = grey.shape[1] > 600
        return ink

    monkeypatch.setattr(ink_network, "ink_chances", chances)
    found = network_ink(np.full((1500, 2000), 200, np.uint8))
    assert (found[:, -2:] == written).all() and (found[:5, :30] == (not written)).all()
