"""Recipes: their sources in order, and errors that name the key, its origin and the nearest known key."""

from pathlib import Path

import pytest
from conftest import here

from mgc.config import BaselineRecipe, StudyRecipe, read_recipe
from mgc.util.errors import MgcError, did_you_mean


def refusal(*settings: str, file: Path | None = None) -> str:
    with pytest.raises(MgcError) as caught:
        read_recipe(BaselineRecipe, file, settings)
    return str(caught.value)


def toml(folder: Path, text: str) -> Path:
    file = folder / "recipe.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_defaults_then_file_then_settings_then_options(tmp_path: Path) -> None:
    file = toml(
        tmp_path, 'hypothesis = "später"\nseed = 1\n[train]\nepochs = 11\npatience = 12\nbatch_size = 13\n'
    )
    settings = ["train.patience=22", "train.batch_size=23", "train.learning_rate=1"]
    options = {"train.batch_size": 33, "data.split_seed": 0, "device": None}
    recipe = read_recipe(BaselineRecipe, file, settings, options)
    assert recipe.hypothesis == "später" and recipe.seed == 1
    assert (recipe.train.epochs, recipe.train.patience, recipe.train.batch_size) == (11, 22, 33)
    assert recipe.train.learning_rate == 1.0 and recipe.train.weight_decay == 0.0  # an integer is a float
    assert recipe.data.split_seed == 0 and recipe.device == "auto"
    assert read_recipe(BaselineRecipe) == BaselineRecipe()


def test_seeds_are_a_count_or_distinct_seeds(tmp_path: Path) -> None:
    text = "seeds = 3\nsplit_seeds = [4, 2]\n[[runs]]\nconfig = 'x'\nseeds = 1\n"
    recipe = read_recipe(StudyRecipe, toml(tmp_path, text))
    assert (recipe.seeds, recipe.split_seeds, recipe.runs[0].seeds) == ((0, 1, 2), (4, 2), (0,))
    for wrong in ("0", "101", "true", "[]", "[1, 1]", '"3"', "1.0"):
        with pytest.raises(MgcError, match="expected a count from 1 to 100"):
            read_recipe(StudyRecipe, None, [f"seeds={wrong}"])
    with pytest.raises(MgcError, match=r"split_seeds.1 = -1"):
        read_recipe(StudyRecipe, None, ["split_seeds=[0, -1]"])


def test_the_data_set_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_recipe(BaselineRecipe).data.source == "demo"
    monkeypatch.setenv("MGC_DATA", "/music")
    assert read_recipe(BaselineRecipe).data.source == "/music"
    assert read_recipe(BaselineRecipe, None, ["data.source=here"]).data.source == "here"
    monkeypatch.delenv("MGC_EMBEDDINGS_CACHE")
    assert here().cache == Path("embeddings_cache")


def test_a_setting_is_toml_or_a_bare_word() -> None:
    recipe = read_recipe(
        BaselineRecipe, None, ["network=cnn", 'hypothesis="a = b"', "data={limit = 3}", "seed = 4"]
    )
    assert (recipe.network, recipe.hypothesis, recipe.data.limit, recipe.seed) == ("cnn", "a = b", 3, 4)


def test_an_unknown_key_names_itself_the_place_and_the_nearest_word(tmp_path: Path) -> None:
    file = toml(tmp_path, "[train]\nepoch = 3\n")
    message = refusal(file=file)
    assert "'train.epoch'" in message and str(file) in message and "did you mean 'epochs'?" in message
    message = refusal("netwrok=cnn")
    assert "'netwrok'" in message and "--set netwrok=cnn" in message and "did you mean 'network'?" in message
    # The place is the setting also where only the table above the key is wrong, and the file is not blamed.
    message = refusal("trian.epochs=3", file=toml(tmp_path, "seed = 1\n"))
    assert "'trian'" in message and "--set trian.epochs=3" in message and "recipe.toml" not in message


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.epochs=abc", "train.epochs = 'abc': input should be a valid integer"),
        ("train.epochs=3.5", "train.epochs = 3.5"),
        ("train.epochs=0", "greater than or equal to 1"),
        ("train=3", "train is a table"),
        ("data={limit = 'x'}", "data.limit = 'x'"),
        ("data.split=rando", "'auto', 'given', 'holdout', 'cv5' or 'random'"),
        ("data.source=8", "valid string"),
        ("train.epochs.x=3", "train.epochs"),
    ],
)
def test_a_wrong_value_names_the_key_and_the_setting(setting: str, words: str) -> None:
    message = refusal(setting)
    assert words in message and f"--set {setting}" in message


def test_a_wrong_value_in_a_file_names_the_file(tmp_path: Path) -> None:
    message = refusal(file=toml(tmp_path, 'seed = "one"\n'))
    assert "seed = 'one'" in message and "recipe.toml" in message
    message = refusal("train.epochs=3", file=toml(tmp_path, "train = 3\n"))
    assert "'train' in 'train.epochs' is a value, not a table" in message
    with pytest.raises(MgcError) as caught:
        read_recipe(BaselineRecipe, toml(tmp_path, "seed = 1"), [], {"data.limit": 0})
    assert "where: --limit" in str(caught.value)


@pytest.mark.parametrize("setting", ["train.epochs", "=3", " = 3", ""])
def test_a_setting_without_key_or_value_is_refused(setting: str) -> None:
    assert "is not key=value" in refusal(setting)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such config file" in refusal(file=tmp_path / "none.toml")
    assert "line 2" in refusal(file=toml(tmp_path, "seed = 1\ntrain = = 3\n"))
    assert "cannot be read as TOML" in refusal(file=tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'hypothesis = "sp\xe4ter"')
    assert "cannot be read as TOML" in refusal(file=tmp_path / "latin.toml")


def test_recipes_are_frozen_and_errors_say_what_where_and_what_to_do() -> None:
    with pytest.raises(ValueError, match="frozen"):
        BaselineRecipe().seed = 3  # type: ignore[misc]
    assert str(MgcError("a", where="b", fix="c")) == "a\n  where: b\n  to do: c"
    assert str(MgcError("a")) == "a"
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"
