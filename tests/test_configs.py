"""Every file under configs/ is a recipe that its command accepts, with a hypothesis."""

from pathlib import Path

import pytest

from mgc.config import BaselineRecipe, CurveRecipe, ProbeRecipe, Repeats, StudyRecipe, TuneRecipe, read_recipe
from mgc.experiments.study import plan_runs
from mgc.probing.heads import HEADS
from mgc.representations.encoders.known import SHORT_NAMES
from mgc.training.networks import NETWORKS, resolved

CONFIGS = Path(__file__).parents[1] / "configs"
KINDS = {
    "baseline": BaselineRecipe, "curve": CurveRecipe, "probe": ProbeRecipe, "study": StudyRecipe,
    "tune": TuneRecipe,
}  # fmt: skip
FILES = sorted(CONFIGS.rglob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_config(file: Path) -> None:
    command = file.relative_to(CONFIGS).parts[0]
    recipe = read_recipe(KINDS[command], file)
    assert recipe.hypothesis
    option = "" if command == "study" else "--config "
    opening = file.read_text(encoding="utf-8").splitlines()[0]
    assert opening.startswith(f"# mgc {command} {option}configs/{file.relative_to(CONFIGS).as_posix()}")
    if isinstance(recipe, BaselineRecipe):
        resolved(recipe)
    if isinstance(recipe, StudyRecipe):
        assert plan_runs(recipe, file, Repeats())


def test_there_is_a_config_for_every_network_and_classical_head() -> None:
    assert {file.relative_to(CONFIGS).parts[0] for file in FILES} == set(KINDS)
    recipes = [read_recipe(BaselineRecipe, file) for file in (CONFIGS / "baseline").iterdir()]
    assert {recipe.network for recipe in recipes} == set(NETWORKS)
    assert {recipe.scan for recipe in recipes} >= {"time", "mel"}
    probes = [read_recipe(ProbeRecipe, file) for file in (CONFIGS / "probe").iterdir()]
    # mlp768 reproduces a published study of wav2vec2.
    assert {probe.head for probe in probes if probe.model == "stats57"} == set(HEADS) - {"mlp768"}
    assert {probe.head for probe in probes} == set(HEADS)
    assert {probe.model for probe in probes} >= {*SHORT_NAMES, "musicnn", "efficientat_mn04"}


def test_the_plain_baseline_is_what_the_command_does_without_a_config() -> None:
    named = resolved(read_recipe(BaselineRecipe, CONFIGS / "baseline" / "cnn.toml"))
    plain = resolved(read_recipe(BaselineRecipe))
    assert named.model_copy(update={"hypothesis": "", "reported": ""}) == plain
