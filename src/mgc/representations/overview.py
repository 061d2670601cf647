"""`mgc encoders`: the encoders with a short name, as published, without the hub and without torch."""

import json
from dataclasses import asdict, dataclass

from mgc.representations.card import Representation
from mgc.representations.encoders.checkpoints import in_cache
from mgc.representations.encoders.efficientat import PARAMETERS as EFFICIENTAT_PARAMETERS
from mgc.representations.encoders.efficientat import find_weights
from mgc.representations.encoders.efficientat import published as efficientat
from mgc.representations.encoders.families import FAMILIES
from mgc.representations.encoders.known import SHORT_NAMES
from mgc.representations.encoders.musicnn import musicnn
from mgc.representations.encoders.musicnn_weights import WEIGHTS_FILE
from mgc.representations.encoders.transformers_audio import published
from mgc.util.errors import MgcError, did_you_mean
from mgc.util.text import text_table
from mgc.workspace import Workspace

MUSICNN_PARAMETERS = 787_159  # of representations.musicnn_network.MusicNN


@dataclass(frozen=True)
class Listed:
    """One encoder. `dimension` is that of the default layer of a probe."""

    name: str
    sample_rate_hz: int
    window_seconds: float
    dimension: int
    layers: int
    million_parameters: float
    trained_on: str
    licence: str
    here: bool  # the weights are on this machine
    own_code: bool  # needs --trust-remote-code


def encoders(workspace: Workspace) -> list[Listed]:
    """All encoders with a short name."""
    musicnn_file = workspace.weights / WEIGHTS_FILE
    own_code = {name: FAMILIES[known.config["model_type"]].remote for name, known in SHORT_NAMES.items()}
    return [
        _listed(musicnn(workspace), MUSICNN_PARAMETERS, musicnn_file.is_file()),
        _listed(efficientat(), EFFICIENTAT_PARAMETERS, find_weights(workspace) is not None),
        *(
            _listed(published(name), known.millions * 1e6, in_cache(name), own_code[name])
            for name, known in SHORT_NAMES.items()
        ),
    ]


def _listed(card: Representation, parameters: float, here: bool, own_code: bool = False) -> Listed:
    rate = card.cut.sample_rate_hz
    return Listed(
        card.name, rate, round(card.cut.window / rate, 2), card.layers[-1].dim, len(card.layers),
        round(parameters / 1e6, 1), card.trained_on, card.licence, here, own_code,
    )  # fmt: skip


def render(rows: list[Listed], form: str) -> str:
    """As a `table` or as `json`.

    Raises:
        MgcError: unknown format.
    """
    if form == "json":
        return json.dumps([asdict(row) for row in rows], indent=2)
    if form != "table":
        raise MgcError(f"unknown format {form!r}", fix=did_you_mean(form, ["table", "json"]))
    head = ("encoder", "Hz", "window", "dim", "layers", "M weights", "here", "licence", "trained on")
    cells = [
        (
            row.name, row.sample_rate_hz, f"{row.window_seconds:g} s", row.dimension, row.layers,
            f"{row.million_parameters:g}", "yes" if row.here else "no", row.licence, row.trained_on,
        )
        for row in rows
    ]  # fmt: skip
    notes = [
        f"{row.name} runs Python code that comes with its weights: it needs --trust-remote-code"
        for row in rows
        if row.own_code
    ]
    families = "also, by hub id or folder, any model of the types: " + ", ".join(FAMILIES)
    return "\n".join([text_table(head, cells), "", *notes, families])
