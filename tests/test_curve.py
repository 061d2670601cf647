"""The curve: nested subsets, one line a system, and a crossing that is where it was put."""

from dataclasses import MISSING, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import here
from typer.testing import CliRunner

from mgc.cli import app
from mgc.config import DataRecipe
from mgc.evaluate import Predictions, evaluate
from mgc.experiments.curve import Line, _draw, curve_points, lines_of, reached, sentences
from mgc.experiments.systems import load_tracks
from mgc.runs.record import RunRecord
from mgc.runs.tables import System

N, GROUPS = 400, 80


def said(right: int, shift: int = 0) -> Predictions:
    """Of N tracks of GROUPS artists `right` predicted right, drawn by `shift`."""
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
    empty = {"excluded": [], "chosen": [], "seconds": {}, "representation_card": {}, "versions": {}}
    recipe = {"data": {"source": "x", "limit": None}}
    return RunRecord(
        **texts, **empty, seed=0, recipe=recipe, licence=None, scores={}, parameters=0, commit=None
    )  # type: ignore[arg-type]


def kept(record: RunRecord, path: str, size: int | None, seed: int, right: int) -> RunRecord:
    """A record of `right` right predictions, learned from `size` tracks a class, 80 where that is None."""
    data = {**record.recipe["data"], "per_class": size, "per_class_seed": seed}
    recipe = {**record.recipe, "data": data, "seed": seed}
    name = f"{path}-{size}-{seed}"
    one = replace(
        record, run_id=name, system=path, name=path, kind=path, head="", seed=seed, recipe=recipe,
        training_tracks=2.0 * (size or 80), split_hash=name, scores=evaluate(said(right, seed)).to_dict(),
    )  # fmt: skip
    one.save(said(right, shift=seed))
    return one


def test_the_crossing_is_between_the_points_it_lies_between(record: RunRecord) -> None:
    probe = [
        kept(record, "probe", size, seed, right)
        for size, right in ((5, 200), (20, 240), (None, 320))
        for seed in (0, 1)
    ]
    network = [kept(record, "baseline", size, 0, right) for size, right in ((5, 100), (None, 220))]
    lines = lines_of([*network, *reversed(probe)])
    assert [len(line.points) for line in lines] == [2, 3]
    theirs, ours = lines
    assert ours.tracks.tolist() == [5, 20, 80]
    # 220 stands half way from 200 with 5 to 240 with 20; half way on a logarithmic axis is 10.
    size, low, high = reached(ours, theirs.right[-1], said(0).groups)
    assert size == pytest.approx(10)
    assert low < 10 < high < 80
    [sentence] = sentences(lines)
    assert "about 10 tracks a genre what baseline reaches with 80 (0.550)" in sentence

    points = curve_points(lines)
    mine = points[points["kind"] == "probe"]
    assert mine["accuracy"].tolist() == pytest.approx([0.5, 0.6, 0.8])
    assert mine["draws"].tolist() == [2, 2, 2]
    assert (mine["accuracy_low"] < mine["accuracy"]).all()
    assert (mine["accuracy"] < mine["accuracy_high"]).all()
    assert points.loc[points["kind"] == "baseline", "accuracy_deviation"].isna().all()


@pytest.mark.parametrize(
    ("ours", "expected", "told"),
    [
        ((220, 240), -np.inf, "5 or fewer tracks"),
        ((100, 150), np.inf, "does not reach with 80 tracks a genre"),
    ],
)
def test_what_is_not_crossed_is_said(
    record: RunRecord, ours: tuple[int, int], expected: float, told: str
) -> None:
    probe = [kept(record, "probe", size, 0, right) for size, right in zip((5, None), ours, strict=True)]
    network = [kept(record, "baseline", None, 0, 210)]
    lines = lines_of([*probe, *network])
    assert reached(lines[0], lines[1].right[-1], said(0).groups)[0] == expected
    assert told in sentences(lines)[0]


def test_a_dip_counts_until_it_is_left_for_good(record: RunRecord) -> None:
    points = [kept(record, "probe", size, 0, right) for size, right in ((5, 300), (20, 100), (None, 300))]
    line = Line(tuple(System((point,)) for point in points))
    size, _, _ = reached(line, np.asarray(said(200).predicted == said(200).labels, float), said(0).groups)
    assert size == pytest.approx(40)  # not 5


def test_a_dollar_in_a_name_begins_no_formula(record: RunRecord, tmp_path: Path) -> None:
    one = replace(kept(record, "probe", 10, 0, 60), name=r"for $5 or $\frac")
    _draw(curve_points(lines_of([one])), tmp_path)
    assert (tmp_path / "curve.svg").stat().st_size


def test_each_seed_draws_other_tracks_and_the_rest_stays(music: Path) -> None:
    def side(size: int | None, seed: int) -> list[set[str]]:
        recipe = DataRecipe(source=str(music), split="holdout", per_class=size, per_class_seed=seed)
        [fold] = load_tracks(recipe, workspace=here())[1].folds
        return [{*fold.train}, {*fold.val}, {*fold.test}]

    whole, four, two, other = side(None, 0), side(4, 0), side(2, 0), side(2, 1)
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
