"""The doctor: no red check for a sound encoder, and the right red check for each defect."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import here
from typer.testing import CliRunner

from mgc import data
from mgc.cli import app
from mgc.config import DataRecipe, DoctorRecipe
from mgc.evaluate import Predictions
from mgc.experiments.doctor import check_outputs, compare_with_twin
from mgc.representations import Representation, open_representation

Outputs = tuple[list[torch.Tensor], torch.Tensor]
Defect = Callable[[Outputs, torch.Tensor], Outputs]


def test_a_sound_encoder_has_no_red_check(tiny_encoder: Path, music: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--model", str(tiny_encoder), "--data", str(music)])
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if line.split(" ")[0] in ("green", "amber", "red")]
    assert [line.split()[0] for line in lines[:-1]] == ["green"] * 6
    assert "16000 Hz" in lines[1]
    assert "better than random weights" in lines[-1]  # of either colour: both encoders are random
    assert "points [" in lines[-1] and "on 20 tracks" in lines[-1]


def constant(out: Outputs, waveforms: torch.Tensor) -> Outputs:
    return [torch.ones_like(layer) for layer in out[0]], out[1]


def not_a_number(out: Outputs, waveforms: torch.Tensor) -> Outputs:
    return [layer / 0 * 0 for layer in out[0]], out[1]


def random(out: Outputs, waveforms: torch.Tensor) -> Outputs:
    return [layer + torch.randn_like(layer) for layer in out[0]], out[1]


def batch_dependent(out: Outputs, waveforms: torch.Tensor) -> Outputs:
    return [layer + layer.mean(dim=0) for layer in out[0]], out[1]


def verdicts(representation: Representation, music: Path) -> dict[str, str]:
    """The verdict of each check on a few clips, by its name."""
    recipe = DoctorRecipe(model="any", data=DataRecipe(source=str(music)), clips=4)
    dataset = data.load(recipe.data, here())
    return {check.name: check.verdict for check in check_outputs(representation, dataset, recipe)}


@pytest.mark.parametrize(
    ("defect", "check"),
    [
        (constant, "depends on the clip"),
        (not_a_number, "finite output"),
        (random, "deterministic"),
        (batch_dependent, "independent of the batch"),
    ],
)
def test_each_defect_turns_its_check_red(defect: Defect, check: str, tiny_encoder: Path, music: Path) -> None:
    representation = open_representation(str(tiny_encoder), here())

    def load(device: torch.device) -> Any:
        encoder = representation.load(device)
        return lambda waveforms, covered, real: defect(encoder(waveforms, covered, real), waveforms)

    assert verdicts(replace(representation, load=load), music)[check] == "red"


def test_another_sample_rate_than_that_of_the_preprocessor_is_red(tiny_encoder: Path, music: Path) -> None:
    representation = open_representation(str(tiny_encoder), here())
    cut = replace(representation.cut, sample_rate_hz=22_050)
    found = verdicts(replace(representation, cut=cut), music)
    assert found["sample rate"] == "red"
    assert found["finite output"] == "green"  # no other check depends on it


def test_missing_weights_end_in_a_red_line_and_exit_code_1(tiny_encoder: Path, music: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny_encoder / "model.safetensors")
    weights.pop("encoder.layers.1.attention.k_proj.weight")
    save_file(weights, tiny_encoder / "model.safetensors", {"format": "pt"})
    done = CliRunner().invoke(app, ["doctor", "--model", str(tiny_encoder), "--data", str(music)])
    assert done.exit_code == 1
    assert done.stdout.startswith("red    weights: 1 weights of the model are missing in the checkpoint")


def predictions(correct: int) -> Predictions:
    """Of 60 tracks by as many artists, the first `correct` predicted correctly."""
    labels = np.arange(60) % 2
    hit = np.arange(60) < correct
    rows = np.where((labels == 1)[:, None] == hit[:, None], [0.3, 0.7], [0.7, 0.3])
    ids = tuple(f"t{number:02d}" for number in range(60))
    return Predictions(("x", "y"), ids, labels, rows, ids, np.zeros(60, np.int64))


@pytest.mark.parametrize(
    ("pretrained", "untrained", "colour", "word"),
    [
        (50, 30, "green", "better"),
        (34, 30, "amber", "undecided"),
        (30, 30, "amber", "equivalent within 3 points"),
        (30, 50, "red", "worse"),
    ],
)
def test_only_a_significant_loss_against_random_weights_is_red(
    pretrained: int, untrained: int, colour: str, word: str
) -> None:
    check = compare_with_twin(predictions(pretrained), predictions(untrained), "music")
    assert check.verdict == colour
    assert f"{word}: {pretrained / 60:.3f} against {untrained / 60:.3f}" in check.detail


def test_a_feature_without_weights_has_no_twin(music: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--model", "logmel", "--data", str(music)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].startswith("amber  better than random weights: skipped")
