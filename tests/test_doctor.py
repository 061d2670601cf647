"""The doctor: nothing red for a sound encoder, and the right red for each way to be sick."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import here
from typer.testing import CliRunner

from mgc.cli import app
from mgc.config import DataRecipe, DoctorRecipe
from mgc.evaluate import Difference
from mgc.experiments import doctor
from mgc.representations import ModelSpec, Representation, open_representation
from mgc.util.errors import MgcError

Outputs = tuple[list[torch.Tensor], torch.Tensor]


def test_a_sound_encoder_and_its_twin_are_told_apart_in_words(tiny_encoder: Path, music: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--model", str(tiny_encoder), "--data", str(music)])
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if line.split(" ")[0] in ("green", "amber", "red")]
    assert [line.split()[0] for line in lines[:-1]] == ["green"] * 6
    assert "16000 Hz" in lines[1]
    assert "points [" in lines[-1]  # random against random: nothing can be said of who wins
    assert "of 20 tracks" in lines[-1] or "on 20 tracks" in lines[-1]


Sick = Callable[[Outputs, torch.Tensor], Outputs]


def constant(out: Outputs, waveforms: torch.Tensor) -> Outputs:
    return [torch.ones_like(layer) for layer in out[0]], out[1]


def broken(out: Outputs, waveforms: torch.Tensor) -> Outputs:
    return [layer / 0 * 0 for layer in out[0]], out[1]


def restless(out: Outputs, waveforms: torch.Tensor) -> Outputs:
    return [layer + torch.randn_like(layer) for layer in out[0]], out[1]


def sociable(out: Outputs, waveforms: torch.Tensor) -> Outputs:
    return [layer + layer.mean(dim=0) for layer in out[0]], out[1]


SICK: dict[str, tuple[Sick, str]] = {
    "constant": (constant, "reacts to the music"),
    "NaN": (broken, "numbers"),
    "never twice the same": (restless, "same input, same output"),
    "looks at its neighbours": (sociable, "a batch gives what single windows give"),
}


def found(
    model: Path,
    music: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Representation], Representation],
) -> dict[str, str]:
    """Question to verdict, of a changed encoder; nothing is probed."""
    monkeypatch.setattr(
        doctor,
        "open_representation",
        lambda address, trusted=False: change(open_representation(address, workspace=here())),
    )
    monkeypatch.setattr(doctor, "_judged", lambda *_: doctor.Finding("green", "judged", ""))
    recipe = DoctorRecipe(model=str(model), data=DataRecipe(source=str(music)), clips=4)
    return {finding.question: finding.verdict for finding in doctor.examine(recipe, workspace=here())}


def wrapped(sick: Sick) -> Callable[[Representation], Representation]:
    def change(card: Representation) -> Representation:
        def load(device: torch.device) -> Any:
            encoder = card.load(device)
            return lambda waveforms, covered, real: sick(encoder(waveforms, covered, real), waveforms)

        return replace(card, load=load)

    return change


@pytest.mark.parametrize("what", SICK)
def test_each_illness_is_named(
    what: str, tiny_encoder: Path, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sick, question = SICK[what]
    assert found(tiny_encoder, music, monkeypatch, wrapped(sick))[question] == "red"


def test_another_rate_than_the_preprocessors_is_red(
    tiny_encoder: Path, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slower(card: Representation) -> Representation:
        return replace(card, cut=replace(card.cut, sample_rate_hz=22_050))

    verdicts = found(tiny_encoder, music, monkeypatch, slower)
    assert verdicts["sample rate"] == "red"
    assert verdicts["numbers"] == "green"  # and nothing else shows it


def test_made_up_weights_end_in_a_red_line_and_code_1(tiny_encoder: Path, music: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny_encoder / "model.safetensors")
    weights.pop("encoder.layers.1.attention.k_proj.weight")
    save_file(weights, tiny_encoder / "model.safetensors", {"format": "pt"})
    done = CliRunner().invoke(app, ["doctor", "--model", str(tiny_encoder), "--data", str(music)])
    assert done.exit_code == 1
    assert done.stdout.startswith("red    weights: 1 weights of the model are not in the checkpoint")


@pytest.mark.parametrize(
    ("low", "high", "p", "colour"),
    [(0.1, 0.3, 0.01, "green"), (-0.1, 0.3, 0.4, "amber"), (-0.3, -0.1, 0.01, "red")],
)
def test_only_a_shown_defeat_is_red(
    low: float, high: float, p: float, colour: str, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Judged:
        accuracy = 0.5

    class Record:
        judged = Judged()

        def predictions(self) -> None:
            return None

    asked: list[str | None] = []

    def probe(recipe: Any) -> list[Record]:
        asked.append((recipe.model, recipe.random_weights))
        return [Record()]

    gain = Difference(40, 20, "group", (low + high) / 2, low, high, 9, 1, p)
    monkeypatch.setattr(doctor, "probe", probe)
    monkeypatch.setattr(doctor, "paired", lambda a, b: gain)

    class Data:
        name = "music"

    card = open_representation(str(tiny_encoder), workspace=here())
    finding = doctor._judged(card, Data(), DoctorRecipe(model=str(tiny_encoder), seed=5))  # type: ignore[arg-type]
    assert finding.verdict == colour
    assert asked == [(card.spec.name, False), (card.spec.name, True)]
    assert np.isfinite(gain.accuracy_difference)


def test_what_has_no_twin_is_amber() -> None:
    card = open_representation("logmel", workspace=here())
    finding = doctor._judged(card, None, DoctorRecipe(model="logmel"))  # type: ignore[arg-type]
    assert finding.verdict == "amber"
    with pytest.raises(MgcError, match="logmel cannot have random weights"):
        open_representation(ModelSpec("logmel", random_seed=0), here())
