"""The search spaces of the phases, checked before anything is trained."""

import math
from collections.abc import Iterator
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mgc.config import BaselineRecipe, PhaseRecipe, TuneRecipe, read_recipe
from mgc.data import Dataset
from mgc.training.augment import Augment
from mgc.training.networks import resolved
from mgc.util.errors import MgcError

# A search is for one network on one input; searching seeds or splits would select by luck.
FIXED = (
    "data", "seed", "device", "name", "hypothesis", "reported", "network", "representation", "train.epochs",
)  # fmt: skip
Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
Space = dict[str, Distribution]  # by dotted key of BaselineRecipe


def trial_recipe(recipe: TuneRecipe, settings: dict[str, Any], epochs: int) -> BaselineRecipe:
    """The base recipe with `settings` applied; settings that are None get the network's own values.

    Raises:
        MgcError: the network does not have one of the settings.
    """
    tree = recipe.base.model_dump()
    for key, value in {**settings, "train.epochs": epochs}.items():
        *tables, leaf = key.split(".")
        reduce(lambda table, name: table[name], tables, tree)[leaf] = value
    tree |= {"name": f"{recipe.base.name or recipe.base.network}, tuned", "hypothesis": recipe.hypothesis}
    tree |= {"data": recipe.data, "seed": recipe.seed, "device": recipe.device}
    return resolved(BaselineRecipe.model_validate(tree))


def spaces_of(recipe: TuneRecipe, file: Path | None) -> tuple[Space, ...]:
    """The search space of each phase; BaselineRecipe accepts every choice.

    Raises:
        MgcError: a phase, key or value that cannot be searched.
    """
    if not recipe.phases:
        raise MgcError("a search needs [[phases]]", where=file, fix="see configs/tune/quick.toml")
    named = sorted(recipe.base.model_fields_set & {"data", "seed", "device"})
    if named:
        what = f"base.{named[0]} has no effect"
        raise MgcError(what, where=file, fix=f"set {named[0]} outside of [base]")
    names = [phase.name for phase in recipe.phases]
    spaces = []
    for number, phase in enumerate(recipe.phases):
        where = f"{file or 'the recipe'}, phase {phase.name!r}"
        if phase.name in names[:number] or not phase.space:
            what = "two phases have the same name" if phase.space else "the search space is empty"
            fix = 'every phase needs its own name and a space such as "train.batch_size" = [16, 32]'
            raise MgcError(what, where=where, fix=fix)
        if (phase.sampler == "grid") != (phase.trials is None):
            fix = "set trials for random and tpe; a grid tries every combination once, without trials"
            raise MgcError(f"sampler = {phase.sampler!r}, trials = {phase.trials}", where=where, fix=fix)
        spaces.append({key: _distribution(phase, key, one, where) for key, one in _flat(phase.space)})
    return tuple(spaces)


def _flat(space: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """TOML reads `train.batch_size = [16]` without quotes as nested tables: both forms are accepted."""
    for key, one in space.items():
        if isinstance(one, dict) and not one.keys() & {"low", "high", "log"}:
            yield from _flat(one, f"{above}{key}.")
        else:
            yield f"{above}{key}", one


def _distribution(phase: PhaseRecipe, key: str, one: Any, where: str) -> Distribution:
    if any(f"{key}.".startswith(f"{fixed}.") for fixed in FIXED):
        fix = f"set it in [base] or in the phase; fixed in a search: {', '.join(FIXED)}"
        raise MgcError(f"{key} cannot be searched", where=where, fix=fix)
    spread = [one.get("low"), one.get("high")] if isinstance(one, dict) else one
    known = isinstance(spread, list) and all(isinstance(value, str | int | float) for value in spread)
    if not known or not spread:
        fix = "use a list of numbers or words, or {low = 1e-4, high = 1e-2, log = true}"
        raise MgcError(f"{key} = {one!r} is not a search space", where=where, fix=fix)
    try:
        values = [_read(key, value) for value in spread]
    except MgcError as error:
        raise MgcError(error.what, where=where, fix=error.fix) from None
    if not isinstance(one, dict):
        return CategoricalDistribution(list(dict.fromkeys(values)))
    make = IntDistribution if isinstance(values[0], int) else FloatDistribution
    try:
        if phase.sampler == "grid" or one.keys() - {"low", "high", "log"} or values[0] >= values[1]:
            raise ValueError("expected {low, high, log} with low below high; a grid needs a list")
        return make(values[0], values[1], one.get("log", False))
    except ValueError as error:
        raise MgcError(f"{key} = {one!r}: {error}", where=where) from None


def _read(key: str, value: Any) -> Any:
    """The value as a recipe stores it: 1 becomes 1.0 if the setting is a float."""
    return reduce(getattr, key.split("."), read_recipe(BaselineRecipe, options={key: value}))


def check_points(recipe: TuneRecipe, spaces: tuple[Space, ...], dataset: Dataset, file: Path | None) -> None:
    """Check every point of a grid; in other phases every choice, with the first choice of the other keys.

    Raises:
        MgcError: a point that `mgc baseline` would refuse.
    """
    settings: dict[str, Any] = {}
    for phase, space in zip(recipe.phases, spaces, strict=True):
        choices = {key: choices_of(one) for key, one in space.items()}
        first = {key: among[0] for key, among in choices.items()}
        points = [first | {key: value} for key, among in choices.items() for value in among]
        if phase.sampler == "grid":
            points = [dict(zip(choices, point, strict=True)) for point in product(*choices.values())]
        for point in points:
            try:
                Augment(trial_recipe(recipe, settings | point, phase.epochs).augment, dataset.classes)
            except MgcError as error:
                where = f"{file or 'the recipe'}, phase {phase.name!r}: {point}"
                raise MgcError(error.what, where=where, fix=error.fix) from None
        settings |= first


def choices_of(distribution: Distribution) -> list[Any]:
    """All choices, or both ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return [*distribution.choices]
    return [distribution.low, distribution.high]


def count_trials(phase: PhaseRecipe, space: Space) -> int:
    """The number of trials of a phase."""
    return phase.trials or math.prod(len(choices_of(one)) for one in space.values())
