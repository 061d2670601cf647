"""Learning curves: nested subsets, one line per system, and comparisons of known systems."""

from dataclasses import MISSING, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import here
from typer.testing import CliRunner

from mgc.cli import app
from mgc.config import CurveRecipe, DataRecipe
from mgc.evaluate import Predictions, evaluate
from mgc.experiments.curve import curve, curve_differences, curve_points, format_curve, points_of, sentences
from mgc.experiments.systems import load_dataset_and_split
from mgc.runs.record import RunRecord

N, GROUPS = 400, 80


def predicted(right: int, shift: int = 0) -> Predictions:
    """Predictions of N tracks of GROUPS artists, `right` of them correct, drawn with the seed `shift`."""
    labels = np.arange(N) // 2 % 2
    order = np.random.default_rng(shift).permutation(N)
    hit = order < right
    rows = np.where((labels == 1)[:, None] == hit[:, None], [0.3, 0.7], [0.7, 0.3])
    ids = tuple(f"t{number:03d}" for number in range(N))
    groups = tuple(f"a{number % GROUPS}" for number in range(N))
    return Predictions(("x", "y"), ids, labels, rows, groups, np.zeros(N, np.int64))


@pytest.fixture
def record() -> RunRecord:
    texts = dict.fromkeys((f.name for f in fields(RunRecord) if f.type is str and f.default is MISSING), "x")
    empty = {
        "excluded": [],
        "chosen": [],
        "seconds": {},
        "representation_card": {},
        "versions": {},
        "revisions": {},
    }
    recipe = {"data": {"source": "x", "limit": None}}
    return RunRecord(
        **texts, **empty, seed=0, recipe=recipe, licence=None, scores={}, parameters=0, commit=None
    )  # type: ignore[arg-type]


def saved(
    record: RunRecord, kind: str, size: int | None, seed: int, right: int, random: bool = True
) -> RunRecord:
    """A record with `right` correct predictions and `size` training tracks per class, 80 for None."""
    data = {**record.recipe["data"], "per_class": size, "per_class_seed": seed}
    recipe = {**record.recipe, "data": data, "seed": seed, "head": "mlp" if random else "logistic"}
    name = f"{kind}-{size}-{seed}"
    one = replace(
        record, run_id=name, system=kind, name=kind, kind=kind, head="", seed=seed, recipe=recipe,
        training_tracks=2.0 * (size or 80), split_hash=name, folder=here().results / "x" / name,
        scores=evaluate(predicted(right, seed)).to_dict(),
    )  # fmt: skip
    predictions = predicted(right, shift=seed + 100 * (kind == "probe"))
    validation = [predictions] * 2
    one.save(predictions, [replace(v, fold=v.fold + n) for n, v in enumerate(validation)])
    return one


def test_systems_are_compared_at_each_size_and_with_the_network_on_all_tracks(record: RunRecord) -> None:
    sizes = ((5, 220), (20, 300), (None, 320))
    probe = [saved(record, "probe", size, seed, right) for size, right in sizes for seed in range(3)]
    sizes = ((5, 100), (20, 200), (None, 222))
    network = [saved(record, "baseline", size, seed, right) for size, right in sizes for seed in range(3)]
    points = points_of([*network, *reversed(probe)])
    table = curve_points(points)
    assert table["tracks"].tolist() == [5, 20, 80, 5, 20, 80]
    assert table["accuracy"].tolist() == pytest.approx([0.25, 0.5, 0.555, 0.55, 0.75, 0.8])
    assert set(table["validation_tracks"]) == {N}

    compared = curve_differences(points, margin=3.0)
    assert set(compared["family_size"]) == {5}  # three sizes, and two smaller ones against all tracks
    assert set(compared["system"]) == {"probe"} and set(compared["versus_system"]) == {"baseline"}
    assert compared["tracks"].tolist() == [5, 5, 20, 20, 80]
    assert compared["versus_tracks"].tolist() == [5, 80, 20, 80, 80]
    assert compared["verdict"].tolist() == ["better", "undecided", "better", "better", "better"]
    equal, most = sentences(compared)
    assert equal == (
        "probe against baseline with as many training tracks per genre (differences in points): "
        "better with 5 (+30.0), 20 (+25.0), 80 (+24.5)."
    )
    assert "with 80 training" in most
    assert most.endswith("better with 20 (+19.5), 80 (+24.5); undecided with 5 (-0.5).")

    for form in ("table", "markdown"):
        text = format_curve(points, 3.0, form)
        assert f"every system uses {N} validation tracks per fold" in text
        assert equal in text and " 5.0 " not in text


def test_the_margin_decides_what_is_equivalent(record: RunRecord) -> None:
    one = [saved(record, "probe", None, seed, 300) for seed in range(3)]
    other = [saved(record, "baseline", None, seed, 300) for seed in range(3)]
    points = points_of([*one, *other])
    assert curve_differences(points, margin=1.0)["verdict"].tolist() == ["undecided"]
    assert curve_differences(points, margin=20.0)["verdict"].tolist() == ["equivalent"]
    assert "equivalent within 20 points with 80 (+0.0)" in format_curve(points, 20.0)


@pytest.mark.parametrize(
    ("size", "random", "verdict"),
    [(None, True, "one seed"), (None, False, "better"), (5, False, "one seed")],
)
def test_few_seeds_give_no_verdict_if_seeds_change_anything(
    record: RunRecord, size: int | None, random: bool, verdict: str
) -> None:
    """With all tracks and a head without random numbers there is nothing to repeat; with a size, the seed
    draws the training tracks."""
    runs = [saved(record, kind, size, 0, right, random) for kind, right in (("probe", 300), ("floor", 100))]
    compared = curve_differences(points_of(runs), margin=3.0)
    assert compared["verdict"].tolist() == [verdict]


def test_a_single_system_has_points_and_no_comparisons(record: RunRecord) -> None:
    text = format_curve(points_of([saved(record, "probe", 5, seed, 200) for seed in range(3)]), 3.0)
    assert "0.500" in text and "verdict" not in text


def test_a_dollar_in_a_genre_or_system_is_not_a_formula(music: Path) -> None:
    """Matplotlib would refuse an unfinished formula in the legend."""
    (music.parent / "probe.toml").write_text('name = "for $5 or $\\\\frac"\nmodel = "logmel"\n')
    data = DataRecipe(source=str(music), split="holdout")
    recipe = CurveRecipe(data=data, seeds=(0,), sizes=("all",), runs=({"config": "probe.toml"},))
    curve(recipe, here(), music.parent / "curve.toml")
    assert (here().results / "music" / "curve.svg").stat().st_size


def test_each_seed_draws_other_training_tracks_and_the_same_tests(music: Path) -> None:
    def sets(size: int | None, seed: int) -> list[set[str]]:
        recipe = DataRecipe(source=str(music), split="holdout", per_class=size, per_class_seed=seed)
        [fold] = load_dataset_and_split(recipe, workspace=here())[1].folds
        return [{*fold.train}, {*fold.val}, {*fold.test}]

    whole, four, two, other = sets(None, 0), sets(4, 0), sets(2, 0), sets(2, 1)
    assert two[0] < four[0] < whole[0]
    assert two[0] != other[0]
    assert whole[1:] == four[1:] == two[1:] == other[1:]


def test_curve_end_to_end(music: Path) -> None:
    words = ["curve", "--data", str(music), "--split", "holdout", "--systems", "logmel", "--sizes", "2,all"]
    done = CliRunner().invoke(app, [*words, "--seeds", "0,1"])
    assert done.exit_code == 0, (done.output, done.exception)
    points = pd.read_csv(here().results / "music" / "curve.csv")
    assert sorted(points["system"].unique()) == ["logmel + logistic", "logmel statistics + logistic"]
    assert points.loc[points["system"] == "logmel + logistic", "per_class"].tolist() == ["2", "all"]
    assert points["tracks"].tolist() == [2, 7, 2, 7]
    assert points["draws"].tolist() == [2, 1, 2, 2]
    assert {file.suffix for file in here().results.glob("music/curve.*")} == {".csv", ".md", ".png", ".svg"}
    assert "logmel + logistic: 2" in done.stdout and "2.0" not in done.stdout
    assert "validation tracks per fold" in (here().results / "music" / "curve.md").read_text()
    for wrong, why in (
        (["--margin", "0"], "margin"),
        (["--sizes", "7"], "largest genre has 7"),
        (["--sizes", "x"], "sizes"),
    ):
        done = CliRunner().invoke(app, [*words[:7], *wrong])
        assert done.exit_code == 2, (done.output, done.exception)
        assert why in done.stderr
