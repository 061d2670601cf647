"""Every file under configs/ is a recipe that its command takes, and says what it is for."""

from pathlib import Path

import pytest

from mgc.config import BaselineRecipe, ProbeRecipe, read_recipe

CONFIGS = Path(__file__).parents[1] / "configs"
KINDS = {"baseline": BaselineRecipe, "probe": ProbeRecipe}
FILES = sorted(CONFIGS.rglob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_config(file: Path) -> None:
    command = file.relative_to(CONFIGS).parts[0]
    recipe = read_recipe(KINDS[command], file)
    assert recipe.hypothesis
    opening = file.read_text(encoding="utf-8").splitlines()[0]
    assert opening.startswith(f"# mgc {command} --config configs/{file.relative_to(CONFIGS).as_posix()}")


def test_there_are_configs() -> None:
    assert {file.relative_to(CONFIGS).parts[0] for file in FILES} == set(KINDS)


def test_the_plain_baseline_is_what_the_command_does_without_a_config() -> None:
    named = read_recipe(BaselineRecipe, CONFIGS / "baseline" / "cnn.toml")
    assert named.model_copy(update={"hypothesis": ""}) == read_recipe(BaselineRecipe)
