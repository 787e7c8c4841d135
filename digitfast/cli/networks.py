"""Open networks by the names that commands take."""
from pathlib import Path

from digitfast.errors import BadSetting, RunNotFound
from digitfast.inference.predictor import SUFFIXES, Predictor, open_predictor, predictor_of
from digitfast.runs.folders import find_run

# of other programs' networks, and of weights alone
FOREIGN_SUFFIXES = {".bin", ".ckpt", ".h5", ".joblib", ".keras", ".pb", ".pickle", ".pt", ".pth",
                    ".tflite"}


def open_network(
    target: str | Path | None = None,  # run, .safetensors, .onnx or .pkl; None: the bundled one
    runs: str | Path = "runs",  # folder of the run folders
    trust: bool = False,  # whether code in a .pkl may be run
    device: str | None = None,  # where it runs; None: the CPU
) -> Predictor:
    """Return the network in a run, given by its name or folder, or in a file.

    Raises: `RunNotFound`, `BadData`, `BadSetting` for a .pkl that is not trusted or a device that
    is not there.
    """
    if device is not None:
        from digitfast.data.devices import named_device  # imports torch, which an .onnx need not
        place = named_device(device)
        return open_network(target, runs, trust).to(place)
    if target is None:
        return Predictor.packed()
    if Path(target).suffix.lower() in FOREIGN_SUFFIXES:
        raise BadSetting(f"{target} is not a network that digitfast can open; it must be a run, a "
                         f"{', '.join(SUFFIXES)} or a .pkl from learn.export(), since weights "
                         "alone do not say which network they belong to")
    if Path(target).suffix in SUFFIXES:
        return open_predictor(target)
    if not Path(target).is_file():
        return find_run(target, runs).predictor()
    from digitfast.inference.pickles import open_learner  # here: only a .pkl needs fastai
    try:
        summary = find_run(Path(target).parent).summary
    except RunNotFound:
        summary = None
    return predictor_of(open_learner(target, trust), summary)


def is_network(
    target: str | Path,
    runs: str | Path = "runs",  # folder of the run folders
) -> bool:
    "Return whether `target` names a network, not a picture."
    path = Path(target)
    if path.is_file() or path.suffix in (*SUFFIXES, ".pkl"):
        return path.suffix in (*SUFFIXES, ".pkl") or path.suffix.lower() in FOREIGN_SUFFIXES
    return any((folder / "summary.json").is_file() for folder in (path, Path(runs) / path))


def network_and_pictures(
    targets: list[str],  # pictures, and before them perhaps a network
    runs: str | Path = "runs",  # as for `open_network`
    trust: bool = False,
    device: str | None = None,
) -> tuple[Predictor, list[str]]:
    """Return the network that the first of `targets` names, or the bundled one, and the pictures.

    Raises: as `open_network`.
    """
    word = Path(targets[0])
    mistyped_run = len(targets) > 1 and not word.suffix and not word.exists()
    named = is_network(word, runs) or mistyped_run
    if named and len(targets) == 1:
        raise BadSetting(f"{targets[0]} is a network; name pictures after it")
    if named:
        return open_network(targets[0], runs, trust, device), targets[1:]
    return open_network(None, runs, trust, device), targets
