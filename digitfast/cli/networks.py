"""Networks by the names that commands take."""
from pathlib import Path

from digitfast.errors import BadSetting, RunNotFound
from digitfast.inference.predictor import SUFFIXES, Predictor, open_predictor, predictor_of
from digitfast.runs.folders import find_run

#: Files of other programs' networks, and of weights alone, by their suffixes.
STRANGE_NETWORKS = {".bin", ".ckpt", ".h5", ".joblib", ".keras", ".pb", ".pickle", ".pt", ".pth", ".tflite"}


def open_network(
    target: str | Path | None = None,  # name or folder of a run, a .safetensors, .onnx or .pkl; None: digitfast's own
    runs: str | Path = "runs",  # folder of the run folders
    trust: bool = False,  # whether code in a .pkl may be run
) -> Predictor:
    "The network of that name. Raises: `RunNotFound`, `BadData`, `BadSetting` for a .pkl that is not trusted."
    if target is None:
        return Predictor.packed()
    if Path(target).suffix.lower() in STRANGE_NETWORKS:
        raise BadSetting(f"{target} is no network that digitfast opens: that must be a run, a {', '.join(SUFFIXES)} "
                         "or a .pkl from learn.export(); weights alone do not say of which network they are")
    if Path(target).suffix in SUFFIXES:
        return open_predictor(target)
    if not Path(target).is_file():
        return find_run(target, runs).predictor()
    from digitfast.inference.pickles import open_learner  # so that the others need no fastai
    try:
        summary = find_run(Path(target).parent).summary
    except RunNotFound:
        summary = None
    return predictor_of(open_learner(target, trust), summary)


def is_network(
    target: str | Path,
    runs: str | Path = "runs",  # folder of the run folders
) -> bool:
    "Whether `target` names a network, and not a picture."
    path = Path(target)
    if path.is_file() or path.suffix in (*SUFFIXES, ".pkl"):
        return path.suffix in (*SUFFIXES, ".pkl") or path.suffix.lower() in STRANGE_NETWORKS
    return any((folder / "summary.json").is_file() for folder in (path, Path(runs) / path))


def network_and_pictures(
    targets: list[str],  # pictures, and before them perhaps a network
    runs: str | Path = "runs",  # as for `open_network`
    trust: bool = False,
) -> tuple[Predictor, list[str]]:
    "The network that the first of `targets` names, or digitfast's own, and the pictures. Raises: as `open_network`."
    word = Path(targets[0])
    named = is_network(word, runs) or (len(targets) > 1 and not word.suffix and not word.exists())  # a mistyped run
    if named and len(targets) == 1:
        raise BadSetting(f"{targets[0]} is a network; name pictures behind it")
    return open_network(targets[0] if named else None, runs, trust), targets[1:] if named else targets
