"""The recipe of a recorded run: its non-default settings, its command line, and the recipe that reruns it."""

import re
import shlex
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from mgc.config import BaselineRecipe, ProbeRecipe, toml_value
from mgc.runs.record import NAMES_ONLY, RunRecord
from mgc.util.errors import MgcError

# Settings that are no variant of a system: they name it, or cannot change its result.
PART_OF_NAME = {*NAMES_ONLY, "seed", "network", "head", "layers", "pool"}


def changed_settings(record: RunRecord) -> dict[str, Any]:
    """The settings of a run that differ from the defaults (of its network), by dotted key."""
    default: BaselineRecipe | ProbeRecipe = ProbeRecipe()
    if record.kind == "baseline":
        from mgc.training.networks import NETWORKS, resolved

        network = record.recipe["network"]
        default = resolved(BaselineRecipe(network=network)) if network in NETWORKS else BaselineRecipe()
        default = default.model_copy(update={"network": BaselineRecipe().network})
    defaults = _flat(default.model_dump(mode="json"))
    own = _flat(record.recipe)
    return {key: own[key] for key in own if key not in defaults or defaults[key] != own[key]}


def variant_of(record: RunRecord) -> str:
    """The settings of a run that differ from those of a plain run of its system: `label_smoothing 0.1`."""
    if record.variant is not None:
        return record.variant
    changed = {
        key.rpartition(".")[2]: value
        for key, value in changed_settings(record).items()
        if not key.startswith("data.") and key not in PART_OF_NAME
    }
    return ", ".join(f"{key} {value}" for key, value in changed.items())


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a nested dict by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def command_line(record: RunRecord) -> str:
    """The command that reproduces a run, quoted for a shell; without its hypothesis."""
    hidden, changed = ("hypothesis", "reported"), changed_settings(record)
    settings = {key: value for key, value in changed.items() if key not in hidden and value is not None}
    if record.kind == "floor":
        settings["model"] = "logmel"  # every run adds the floors; this one is the cheapest
    source = settings.pop("data.source", None) or record.recipe["data"]["source"]
    words = ["mgc", "baseline" if record.kind == "baseline" else "probe", "--data", source]
    for key, value in settings.items():
        words += ["--set", f"{key}={_toml(value)}"]
    return shlex.join(words)


def _toml(value: Any) -> str:
    """A value as `--set` reads it: a plain word needs no quotes."""
    plain = isinstance(value, str) and re.fullmatch(r"(?!true$|false$|inf$|nan$)[A-Za-z][\w/.:-]*", value)
    return str(value) if plain else toml_value(value)


def recipe_from_record(
    record: RunRecord, changes: Mapping[str, str | None]
) -> tuple[BaselineRecipe | ProbeRecipe, list[str]]:
    """The recipe in a record, with `changes` by dotted key, and notes on settings that the record lacks.

    Raises:
        MgcError: the record has keys or values that this version of mgc does not know.
    """
    if record.kind not in ("baseline", "probe", "floor"):
        raise MgcError(f"runs of the kind {record.kind!r} cannot be reproduced", where=record.folder)
    kind = BaselineRecipe if record.kind == "baseline" else ProbeRecipe
    tree = deepcopy(record.recipe)
    known, recorded = set(_flat(kind().model_dump(mode="json"))), set(_flat(tree))
    where = record.folder / "record.json"
    fix = f"check out the code that made the run: commit {record.commit}"
    if unknown := sorted(recorded - known):
        raise MgcError(f"unknown settings in this version of mgc: {', '.join(unknown)}", where=where, fix=fix)
    for key, value in changes.items():
        if value is not None:
            table, _, leaf = key.rpartition(".")
            (tree[table] if table else tree)[leaf] = value
    try:
        recipe = kind.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise MgcError(f"{key} = {first['input']!r}: {first['msg']}", where=where, fix=fix) from None
    missing = ", ".join(sorted(known - recorded))
    return recipe, [f"settings missing in the record, set to their defaults: {missing}"] if missing else []
