"Drawings that are put right on the draw page, and kept."
import pytest
from starlette.testclient import TestClient

from digitfast import Predictor, read_digit, read_digits
from digitfast.draw.kept import KeptDrawings
from digitfast.draw.server import draw_app
from digitfast.errors import BadImage, BadSetting


@pytest.fixture
def kept(tmp_path):
    return KeptDrawings(tmp_path / "mine", list("0123456789"))


@pytest.fixture
def client(kept):
    return TestClient(draw_app(Predictor.packed(), kept), base_url="http://127.0.0.1")


def test_one_digit_of_several_is_kept(kept, sevens):
    second = read_digits(sevens).lines[0][1]
    file = kept.keep(sevens, "7", second.box)
    assert file == kept.folder / "7/drawn-1.png"
    assert read_digits(file).text == "7"


def test_nothing_is_overwritten(kept, sevens):
    (kept.folder / "7").mkdir(parents=True)
    (kept.folder / "7/drawn-1.png").write_bytes(b"mine")
    assert kept.keep(sevens, "7", (20, 30, 100, 140)).name == "drawn-2.png"
    assert (kept.folder / "7/drawn-1.png").read_bytes() == b"mine"


def test_the_last_ones_can_be_taken_back(kept, sevens):
    files = [kept.keep(sevens, label, (20, 30, 100, 140)) for label in "71"]
    assert kept.take_back() == files[1]
    assert [file.exists() for file in files] == [True, False]
    assert kept.take_back() == files[0]
    assert kept.take_back() is None


def test_what_was_there_before_cannot_be_taken_back(kept):
    (kept.folder / "7").mkdir(parents=True)
    (kept.folder / "7/drawn-1.png").write_bytes(b"mine")
    assert kept.take_back() is None


@pytest.mark.parametrize("label", ["", "11", "../7", "/tmp"])
def test_unknown_labels(kept, sevens, label):
    with pytest.raises(BadSetting, match="the label must be one of 0, 1, "):
        kept.keep(sevens, label, (20, 30, 100, 140))
    assert not kept.folder.exists()


def test_a_box_outside(kept, sevens):
    with pytest.raises(BadSetting, match="outside the picture"):
        kept.keep(sevens, "7", (900, 900, 950, 950))


def test_what_is_no_picture(kept):
    with pytest.raises(BadImage):
        kept.keep(b"no picture", "7", (0, 0, 9, 9))


def test_folders_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSetting, match="is a file; --keep must name a folder"):
        KeptDrawings(tmp_path / "file", "01")
    with pytest.raises(BadSetting, match="--keep must name one in a folder that exists"):
        KeptDrawings(tmp_path / "absent/mine", "01")


@pytest.mark.parametrize("label", ["T-shirt/top", "..", ".x", "train", "a\0b", ""])
def test_classes_that_cannot_be_folders(tmp_path, label):
    with pytest.raises(BadSetting, match="cannot be one"):
        KeptDrawings(tmp_path / "mine", ["Coat", label])


def test_the_page_keeps_and_takes_back(client, kept, sevens):
    box = ",".join(map(str, read_digit(sevens).digit.box))
    answer = client.post(f"/keep?label=1&box={box}", content=sevens)
    assert answer.json() == {"file": str(kept.folder / "1/drawn-1.png")}
    assert client.delete("/keep").json() == {"file": str(kept.folder / "1/drawn-1.png"), "left": 0}
    assert client.delete("/keep").json() == {"file": None, "left": 0}


@pytest.mark.parametrize("query, problem", [
    ("label=x&box=0,0,9,9", "the label must be"), ("label=1", "box must be left,top"),
    ("label=1&box=1,2,3", "box must be left,top"), ("label=1&box=a,b,c,d", "box must be left,top")])
def test_bad_requests(client, sevens, query, problem):
    answer = client.post(f"/keep?{query}", content=sevens)
    assert answer.status_code == 400
    assert problem in answer.json()["error"]


def test_another_sites_page_keeps_nothing(client, kept, sevens):
    answer = client.post("/keep?label=1&box=0,0,90,90", content=sevens,
                         headers={"origin": "http://other.example"})
    assert answer.status_code == 403
    assert not kept.folder.exists()


def test_without_a_folder_nothing_is_kept(sevens):
    client = TestClient(draw_app(Predictor.packed()), base_url="http://127.0.0.1")
    assert client.post("/keep?label=1&box=0,0,90,90", content=sevens).status_code == 404
    assert client.get("/network").json()["keep"] is None
