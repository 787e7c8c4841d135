"""Start a training with the weights of a trained network."""
from dataclasses import replace
from pathlib import Path

from fastai.learner import Learner
from torch import nn

from digitfast.errors import BadSetting
from digitfast.inference.predictor import SUFFIXES, Predictor
from digitfast.runs.digits import READER
from digitfast.training.recipe import Recipe
from digitfast.training.train import train_learner

NON_DIGITS = 0.2  # per digit, for a network that says "no digit", so that it does not forget to


def starting_recipe(
    recipe: Recipe,
    start: Predictor,  # the network to start from
) -> Recipe:
    """Return the recipe with the architecture and the size of `start`.

    The place of `start` becomes absolute. Raises: `BadSetting`.
    """
    for name in ("arch", "size"):
        given, has = getattr(recipe, name), getattr(start, name)
        if given not in (has, getattr(Recipe, name)):
            raise BadSetting(f"{recipe.start} has {name}={has}, not {given}; omit {name}")
    places = [Path(recipe.start)]
    if places[0].suffix not in SUFFIXES:
        places.insert(0, Path(recipe.runs) / recipe.start)
    found = [str(place.absolute()) for place in places if place.exists()]
    absolute = found[0] if found and recipe.start != READER else recipe.start
    return replace(recipe, arch=start.arch, size=start.size, start=absolute)


def start_from(
    learn: Learner,  # of the same architecture; gets the weights
    start: Predictor,
    recipe: Recipe,
) -> Recipe:
    """Copy the weights of `start`, without its last layer where the classes differ.

    Return the recipe with the settings that depend on it. Raises: `BadSetting`.
    """
    weights = start.network.model.state_dict()
    same_classes = list(learn.dls.vocab) == start.vocab
    last = [] if same_classes else [f"{_last_layer(learn.model)}.{part}"
                                    for part in ("weight", "bias")]
    kept = {name: weight for name, weight in weights.items() if name not in last}
    wrong = learn.model.load_state_dict(kept, strict=False)
    if wrong.unexpected_keys or set(wrong.missing_keys) - set(last):
        raise BadSetting(f"the weights of {recipe.start} do not fit {recipe.arch}")
    if recipe.freeze_epochs is None:
        recipe = replace(recipe, freeze_epochs=0 if same_classes else 1)
    if start.no_digit and same_classes and not recipe.non_digits:
        recipe = replace(recipe, non_digits=NON_DIGITS)
    return recipe


def train_last_layer(
    learn: Learner,
    recipe: Recipe,
) -> None:
    "Train the last layer alone at first, as fastai's `fine_tune` does, if the recipe says so."
    if not recipe.freeze_epochs:
        return
    last = learn.model.get_submodule(_last_layer(learn.model))
    others = [p for p in learn.model.parameters() if all(p is not q for q in last.parameters())]
    for p in others:
        p.requires_grad_(False)
    train_learner(learn, recipe.freeze_epochs, recipe.lr, precision=recipe.precision)
    for p in others:
        p.requires_grad_(True)
    learn.opt = None  # a new one trains all weights


def _last_layer(model: nn.Module) -> str:
    "Return the name of the last linear layer."
    return [name for name, part in model.named_modules() if isinstance(part, nn.Linear)][-1]
