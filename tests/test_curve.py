"""Learning curves: nested subsets, one line per system, and the crossing of two known lines."""

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
from mgc.experiments.curve import Line, curve, curve_points, lines_of, sentences, tracks_to_reach
from mgc.experiments.systems import load_dataset_and_split
from mgc.runs.record import RunRecord
from mgc.runs.tables import System

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


def saved(record: RunRecord, kind: str, size: int | None, seed: int, right: int) -> RunRecord:
    """A record with `right` correct predictions and `size` training tracks per class, 80 for None."""
    data = {**record.recipe["data"], "per_class": size, "per_class_seed": seed}
    recipe = {**record.recipe, "data": data, "seed": seed}
    name = f"{kind}-{size}-{seed}"
    one = replace(
        record, run_id=name, system=kind, name=kind, kind=kind, head="", seed=seed, recipe=recipe,
        training_tracks=2.0 * (size or 80), split_hash=name, folder=here().results / "x" / name,
        scores=evaluate(predicted(right, seed)).to_dict(),
    )  # fmt: skip
    one.save(predicted(right, shift=seed))
    return one


def test_the_crossing_is_interpolated_between_two_points(record: RunRecord) -> None:
    probe = [
        saved(record, "probe", size, seed, right)
        for size, right in ((5, 200), (20, 240), (None, 320))
        for seed in (0, 1)
    ]
    network = [saved(record, "baseline", size, 0, right) for size, right in ((5, 100), (None, 220))]
    lines = lines_of([*network, *reversed(probe)])
    assert [len(line.points) for line in lines] == [2, 3]
    theirs, ours = lines
    assert ours.tracks.tolist() == [5, 20, 80]
    # 220 is half way from 200 with 5 tracks to 240 with 20; half way on a logarithmic axis is 10.
    size, low, high = tracks_to_reach(ours, theirs.correct[-1], predicted(0).groups)
    assert size == pytest.approx(10)
    assert low < 10 < high < 80
    [sentence] = sentences(lines)
    assert "with about 10 training tracks per genre reaches the accuracy of baseline with 80" in sentence

    points = curve_points(lines)
    mine = points[points["kind"] == "probe"]
    assert mine["accuracy"].tolist() == pytest.approx([0.5, 0.6, 0.8])
    assert mine["draws"].tolist() == [2, 2, 2]
    assert (mine["accuracy_low"] < mine["accuracy"]).all()
    assert (mine["accuracy"] < mine["accuracy_high"]).all()
    assert points.loc[points["kind"] == "baseline", "accuracy_deviation"].isna().all()


@pytest.mark.parametrize(
    ("ours", "expected", "words"),
    [
        ((220, 240), -np.inf, "5 or fewer training tracks per genre reaches"),
        ((100, 150), np.inf, "with 80 training tracks per genre (0.375) does not reach"),
    ],
)
def test_lines_that_do_not_cross(
    record: RunRecord, ours: tuple[int, int], expected: float, words: str
) -> None:
    probe = [saved(record, "probe", size, 0, right) for size, right in zip((5, None), ours, strict=True)]
    network = [saved(record, "baseline", None, 0, 210)]
    lines = lines_of([*probe, *network])
    assert tracks_to_reach(lines[0], lines[1].correct[-1], predicted(0).groups)[0] == expected
    assert words in sentences(lines)[0]


def test_the_last_crossing_counts(record: RunRecord) -> None:
    points = [saved(record, "probe", size, 0, right) for size, right in ((5, 300), (20, 100), (None, 300))]
    line = Line(tuple(System((point,)) for point in points))
    target = predicted(200)
    size, _, _ = tracks_to_reach(line, (target.predicted == target.labels).astype(float), target.groups)
    assert size == pytest.approx(40)  # not 5


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
    assert {file.suffix for file in here().results.glob("music/curve.*")} == {".csv", ".png", ".svg"}
    for wrong, why in ((["--sizes", "7"], "largest genre has 7"), (["--sizes", "x"], "sizes")):
        done = CliRunner().invoke(app, [*words[:7], *wrong])
        assert done.exit_code == 2, (done.output, done.exception)
        assert why in done.stderr
