"""The recipe in a record: what it set, the command that was typed, and what `rerun` follows."""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mgc.config import BaselineRecipe, ProbeRecipe
from mgc.runs.record import RunRecord
from mgc.util.errors import MgcError


def settings_of(record: RunRecord) -> dict[str, Any]:
    """Dotted keys of its recipe whose values are not today's defaults; for a network, its own ones."""
    default: BaselineRecipe | ProbeRecipe = ProbeRecipe()
    if record.kind == "baseline":
        from mgc.training.networks import NETWORKS, resolved

        network = record.recipe["network"]
        default = resolved(BaselineRecipe(network=network)) if network in NETWORKS else BaselineRecipe()
        default = default.model_copy(update={"network": BaselineRecipe().network})
    usual = _flat(default.model_dump(mode="json"))
    return {
        key: value for key, value in _flat(record.recipe).items() if key not in usual or usual[key] != value
    }


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Dotted keys and values; a table within a table has none of its own."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat


def command_of(record: RunRecord) -> str:
    """What makes this run again where its results lie, as it is typed; but for its hypothesis."""
    settings = {key: v for key, v in settings_of(record).items() if key not in ("hypothesis", "reported")}
    if record.kind == "floor":
        settings["model"] = "logmel"  # any run on these tracks makes the floors too
    source = settings.pop("data.source", None) or record.recipe["data"]["source"]
    words = ["mgc", "baseline" if record.kind == "baseline" else "probe", "--data", source]
    for key, value in settings.items():
        words += [] if value is None else ["--set", f"{key}={_toml(value)}"]
    return shlex.join(words)


def _toml(value: Any) -> str:
    """As `--set` reads it: a plain word is a string."""
    plain = isinstance(value, str) and re.fullmatch(r"(?!true$|false$|inf$|nan$)[A-Za-z][\w/.:-]*", value)
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


def recipe_of(
    record: RunRecord, changes: Mapping[str, str | None]
) -> tuple[BaselineRecipe | ProbeRecipe, list[str]]:
    """The recipe in a record, with `changes` by dotted key; and what an older mgc did not record, in lines.

    Raises:
        MgcError: keys or values that today's mgc does not know.
    """
    kinds: dict[str, type[BaselineRecipe | ProbeRecipe]] = {
        "baseline": BaselineRecipe, "probe": ProbeRecipe, "floor": ProbeRecipe,
    }  # fmt: skip
    if record.kind not in kinds:
        raise MgcError(f"mgc rerun knows no runs of the kind {record.kind!r}", where=record.folder)
    kind, tree = kinds[record.kind], json.loads(json.dumps(record.recipe))
    today, then = set(_flat(kind().model_dump(mode="json"))), set(_flat(tree))
    where, fix = record.folder / "record.json", f"check out the code that made it: commit {record.commit}"
    if unknown := sorted(then - today):
        raise MgcError(f"today's recipes have no {', '.join(unknown)}", where=where, fix=fix)
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
    missing = sorted(today - then)
    told = [f"the record does not say {', '.join(missing)}: today's defaults stand for it"] if missing else []
    return recipe, told
