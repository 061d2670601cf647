"""Tables: which runs are compared, verdicts, sentences, and hostile names."""

import csv
import dataclasses
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import here

from mgc.evaluate import Outcomes, Predictions, Scores, compare, evaluate, unit_numbers
from mgc.runs.record import RunRecord, load_record, load_records, sealed
from mgc.runs.tables import (
    Section,
    answers,
    as_dict,
    caption,
    cells,
    compare_records,
    comparing,
    further_verdicts,
    render,
    verdict_sentence,
)
from mgc.util.errors import MgcError

REAL = Path(__file__).parents[1] / "results" / "emotify"
N = 300


def predictions_of(right: float, seed: int) -> Predictions:
    """300 tracks of 100 artists and three genres, of which a share of `right` is predicted correctly."""
    labels = np.arange(N) % 3
    hit = np.random.default_rng(seed).permutation(N) < round(right * N)
    predicted = np.where(hit, labels, (labels + 1) % 3)
    probabilities = np.full((N, 3), 0.15)
    probabilities[np.arange(N), predicted] = 0.7
    ids = tuple(f"t{i:03d}" for i in range(N))
    groups = tuple(f"artist: {i // 3}" for i in range(N))
    return Predictions(("a", "b", "c"), ids, labels, probabilities, groups, np.zeros(N, int))


def run(system: str, path: str, right: float, **changes: Any) -> RunRecord:
    """A saved run, whose predictions depend on its system and seed."""
    seed, split_seed = changes.get("seed", 0), changes.pop("split_seed", 0)
    predictions = predictions_of(right, sum(map(ord, system)) + seed + 50 * split_seed)
    trained_on = "some tags" if changes.pop("pretrained", path == "probe") else "nothing"
    recipe: dict[str, Any] = {"data": {"limit": None, "split_seed": split_seed}, "seed": seed}
    recipe |= {"network": system} if path == "baseline" else {"model": system, "head": "svm"}
    recipe |= changes.pop("settings", {})
    split, scores = changes.get("split", "cv5"), evaluate(predictions, n_bootstrap=40).to_dict()
    parts: dict[str, Any] = {
        "run_id": f"{path}-{system}-{split}-{split_seed}-{seed}", "system": system, "kind": path,
        "representation": "logmel",
        "head": "svm" if path == "probe" else "", "hypothesis": "", "seed": seed, "recipe": recipe,
        "data": "set", "data_hash": "d", "licence": None, "split": "cv5", "split_authority": "folds",
        "split_hash": f"s{split_seed}", "variant": "", "excluded": [], "scores": scores,
        "parameters": 7, "chosen": [], "seconds": {"train": 1.0}, "revisions": {"split": 1}, "commit": None,
        "versions": {}, "device": "cpu", "created": "2026-01-01",
        "representation_card": {"trained_on": trained_on},
    }  # fmt: skip
    parts |= changes
    record = RunRecord(**parts, folder=here().results_of("set") / parts["run_id"])
    record.save(predictions)
    return record


def section_of(*records: RunRecord) -> Section:
    [section] = compare_records(records)
    return section


def seeds(system: str, right: float, count: int = 3, **changes: Any) -> list[RunRecord]:
    return [run(system, "baseline", right, seed=seed, **changes) for seed in range(count)]


def study() -> list[RunRecord]:
    return [
        run("majority", "floor", 0.33, pretrained=False),
        *seeds("cnn", 0.60),
        *seeds("gru", 0.64),
        run("mfcc", "probe", 0.62, pretrained=False),
        run("musicnn", "probe", 0.78),
        run("ast", "probe", 0.74),
    ]


def test_all_systems_except_floors_are_one_family_against_the_baseline() -> None:
    section = section_of(*study())
    rows = {row.system.record.system: row for row in section.rows}
    assert [row.record.system for row in section.rows] == ["majority", "mfcc", "cnn", "gru", "ast", "musicnn"]
    family = ["mfcc", "gru", "ast", "musicnn"]
    outcomes = [rows[name].system.outcomes for name in ("cnn", *family)]
    groups = unit_numbers(rows["cnn"].system.predictions[0])
    expected = compare(outcomes, [{n: 1, 0: -1} for n in range(1, 5)], groups)
    for name, alone in zip(family, expected, strict=True):
        versus = rows[name].versus
        assert versus is not None
        assert (versus.family_size, versus.n_groups) == (4, 100)
        assert versus.difference == pytest.approx(alone.difference)
        assert versus.p_value == pytest.approx(alone.p_value, abs=0.01)
    assert [rows[name].versus for name in ("majority", "cnn")] == [None, None]
    plain = {name: as_dict(row, section) for name, row in rows.items()}
    assert plain["majority"]["verdict"] is None
    assert plain["musicnn"]["verdict"] == "better"
    assert plain["musicnn"]["vs_baseline_low"] > 0
    assert plain["gru"]["verdict"] == "undecided"
    assert plain["gru"]["detectable"] > 0.05
    assert plain["gru"]["groups_needed"] > 100
    text = " ".join(caption(section))
    assert "Against cnn: all 4 intervals hold together with 95 %" in text
    assert "sign flips of artists" in text


def test_a_verdict_falls_with_the_others() -> None:
    few = section_of(*seeds("cnn", 0.6), close := run("ast", "probe", 0.69))
    row = few.rows[-1]
    assert row.versus is not None
    assert row.versus.verdict() == "better"
    others = [run(f"other {i}", "probe", 0.6) for i in range(25)]
    many = section_of(*seeds("cnn", 0.6), close, *others)
    [same] = [row.versus for row in many.rows if row.system.record == close]
    assert same is not None
    assert same.p_value > row.versus.p_value
    assert same.high - same.low > row.versus.high - row.versus.low


def test_a_network_with_one_seed_gets_no_verdict() -> None:
    section = section_of(run("cnn", "baseline", 0.5), run("ast", "probe", 0.8))
    assert as_dict(section.rows[-1], section)["verdict"] == "one seed"
    assert "One seed: training is random" in " ".join(caption(section))
    sentence = verdict_sentence(section)
    assert sentence.startswith("No verdict on a frozen pretrained encoder against a network trained from ")
    assert sentence.endswith("cnn has 1 seed: run mgc baseline --seeds 3.")
    # The difference and its interval are still shown.
    assert "points [" in sentence
    wider = section_of(run("cnn", "baseline", 0.5, seed=1, variant="dropout 0.5"), run("ast", "probe", 0.8))
    assert verdict_sentence(wider).endswith("(mgc runs show baseline-cnn-cv5-0-1) with --seeds 3.")


def test_a_system_with_too_few_seeds_is_not_chosen_as_the_best() -> None:
    section = section_of(*seeds("cnn", 0.6), run("gru", "baseline", 0.7), run("ast", "probe", 0.85))
    assert "against cnn (" in verdict_sentence(section)
    assert verdict_sentence(section).startswith("A frozen pretrained encoder is better than a network")


def test_the_best_of_several_is_tested_against_all_pairs() -> None:
    section = section_of(*study())
    pair = section.best_against("frozen", "scratch")
    assert pair is not None
    assert (pair.one.record.system, pair.other.record.system) == ("musicnn", "gru")
    assert pair.candidates == (2, 2)
    assert pair.comparison.family_size == 4
    sentence = verdict_sentence(section)
    assert sentence.startswith("A frozen pretrained encoder is better than a network trained from scratch")
    assert f"musicnn + svm ({pair.one.scores.accuracy:.3f}, the best of 2) against gru (" in sentence
    assert f"{100 * pair.comparison.difference:+.1f} points [" in sentence
    assert ", corrected for 4 pairs, on 300 tracks by 100 artists." in sentence
    lost = section_of(*seeds("cnn", 0.85), run("ast", "probe", 0.6))
    assert "encoder is worse than a network trained from scratch on audio: ast" in verdict_sentence(lost)


def test_each_pair_of_categories_is_tested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    section = section_of(*study())
    calls: list[int] = []
    monkeypatch.setattr(comparing, "compare", lambda *words: calls.append(1) or compare(*words))
    render([section], "markdown")
    tested = len(calls)
    render([section], "table")
    assert tested == len(calls) == 6  # three kinds of systems against one another, and against the floor


def test_equal_systems_are_equivalent_within_the_margin() -> None:
    records = [*seeds("cnn", 0.6, 5), *seeds("gru", 0.6, 5)]
    right = Outcomes.of([record.predictions() for record in records[:5]])
    for record in records[5:]:  # the same predictions, so no difference and no variance
        record.save(records[record.seed].predictions())
    section = section_of(*records)
    versus = section.rows[-1].versus
    assert versus is not None
    assert versus.difference == pytest.approx(0)
    assert right.mean.mean() == pytest.approx(section.rows[0].scores.accuracy)
    assert versus.verdict(0.2) == "equivalent"
    [wide] = compare_records(records, margin=20)
    assert answers(wide)[0].startswith("gru and cnn are equivalent within 20 points: gru (")


def test_the_runs_at_hand_decide_the_question() -> None:
    floor = run("logmel statistics", "floor", 0.4, pretrained=False)
    probe, features = run("ast", "probe", 0.75), run("mfcc", "probe", 0.6, pretrained=False)
    [sentence] = answers(section_of(floor, probe))
    assert sentence.startswith(
        "A frozen pretrained encoder is better than the floor: ast + svm (0.750) against"
    )
    sentence = verdict_sentence(section_of(floor, probe, features))
    assert sentence.startswith(
        "A frozen pretrained encoder is better than a classifier of hand-made features"
    )
    networks = section_of(floor, *seeds("cnn", 0.6), *seeds("crnn", 0.8))
    assert verdict_sentence(networks).startswith("crnn is better than cnn: crnn (")
    # A network on one vector per track learns from features, not from audio.
    card = {"trained_on": "nothing", "pooled": True}
    mlp = seeds("mlp", 0.7, representation_card=card)
    assert "classifier of hand-made features" in verdict_sentence(section_of(probe, *mlp))
    twin = run("random", "probe", 0.6, representation_card={"trained_on": "nothing: random weights, seed 0"})
    assert section_of(floor, twin).rows[-1].system.category == "untrained"
    # A floor that is not beaten is named, whatever else is answered.
    high = run("logmel statistics", "floor", 0.9, pretrained=False)
    found = answers(section_of(high, *seeds("cnn", 0.6), probe))
    assert "A frozen pretrained encoder is worse than the floor" in found[1]
    assert "on audio is worse than the floor" in found[2]
    assert answers(section_of(run("cnn", "baseline", 0.6)))[0] == "Only cnn at hand: nothing to compare."
    leaky = [dataclasses.replace(one, leaky=True) for one in (*seeds("cnn", 0.6), probe)]
    assert verdict_sentence(section_of(*leaky)).startswith("On a split that leaks: A frozen")


def test_the_plain_cnn_is_the_baseline_whatever_ran_last() -> None:
    smoothed = run(
        "cnn", "baseline", 0.7, settings={"train": {"label_smoothing": 0.1}}, created="2026-02-01",
        variant="label_smoothing 0.1", run_id="smoothed",
    )  # fmt: skip
    gru = run("gru", "baseline", 0.7, created="2025-01-01")
    section = section_of(run("cnn", "baseline", 0.6), smoothed, gru)
    assert section.baseline is not None
    assert section.baseline.record.variant == ""
    assert {row.title for row in section.rows} == {"cnn", "cnn + label_smoothing 0.1", "gru"}
    [chosen] = compare_records([run("cnn", "baseline", 0.6), smoothed], "smoothed")
    assert chosen.baseline is not None
    assert chosen.baseline.record.run_id == "smoothed"


def test_seeds_and_splits_of_a_cross_validation_share_a_row() -> None:
    records = [
        run("musicnn", "probe", right, split_seed=seed) for seed, right in enumerate((0.70, 0.73, 0.76))
    ]
    section = section_of(*records, *seeds("cnn", 0.6))
    cnn, musicnn = section.rows
    cell = as_dict(musicnn, section)
    assert (cell["seeds"], cell["splits"], cell["seed_sd"]) == (1, 3, None)
    assert cell["split_sd"] == pytest.approx(0.03)
    assert cell["accuracy"] == pytest.approx(0.73)
    assert [cells(musicnn, section)[name] for name in ("runs", "± splits")] == ["3 splits", "0.030"]
    assert cells(cnn, section)["runs"] == "3 seeds"
    assert musicnn.versus is not None
    assert musicnn.versus.repeat_error > 0.01
    assert musicnn.versus.difference == pytest.approx(musicnn.scores.accuracy - cnn.scores.accuracy)
    # Another holdout tests other tracks: its runs are not averaged.
    apart = [run("ast", "probe", 0.7, split="holdout", split_seed=seed) for seed in range(2)]
    assert len(compare_records(apart)) == 2


def test_rows_of_several_seeds_show_means_of_all_scores() -> None:
    records = seeds("cnn", 0.6)
    section = section_of(*records)
    cell = as_dict(section.rows[0], section)
    scores = "accuracy", "macro_f1", "balanced_accuracy", "roc_auc", "top2_accuracy", "calibration_error"
    for name in scores:
        mean = np.mean([getattr(record.evaluation, name) for record in records])
        assert cell[name] == pytest.approx(mean)
    for name in scores[:4]:
        assert cell[f"{name}_low"] < cell[name] < cell[f"{name}_high"]


def test_a_leak_is_measured_on_the_tracks_that_both_splits_test() -> None:
    leaky = run("musicnn", "probe", 0.9, split="random", leaky=True, split_hash="r")
    section = section_of(run("musicnn", "probe", 0.7), *seeds("cnn", 0.6), leaky)
    row = section.rows[-1]
    assert row.twin is not None
    assert row.leak is not None
    assert row.leak.difference == pytest.approx(0.2)
    assert row.versus is None
    [sentence] = [line for line in further_verdicts(section) if "LEAKY" in line]
    assert sentence.startswith("LEAKY: musicnn + svm scores +20.0 points [")
    assert "compared with cv5 on the 300 tracks that both test" in sentence
    other = leaky.predictions()
    ids = tuple(f"u{i:03d}" for i in range(N))
    leaky.save(dataclasses.replace(other, track_ids=ids))
    section = section_of(run("musicnn", "probe", 0.7), leaky)
    assert section.rows[-1].leak is None
    assert "test no track in common" in further_verdicts(section)[-1]


HOSTILE = 'x|y & <script>alert("1")</script> _a_ 50%\n\\input{z}, `c` *d* #$^~{}'


def test_hostile_names_do_not_break_any_format() -> None:
    section = section_of(*seeds("cnn", 0.6), run("ast", "probe", 0.8, name=HOSTILE))
    one_line = HOSTILE.replace("\n", "\\n")
    table, markdown, latex = (render([section], form) for form in ("table", "markdown", "latex"))
    assert max(map(len, table.split("\n\n")[0].splitlines())) <= 140
    both = [run("a long name", "baseline", 0.6, seed=s, split_seed=t) for s in range(3) for t in range(3)]
    wide = render([section_of(*seeds("cnn", 0.6), *both, run("ast", "probe", 0.9))], "table")
    assert "3 seeds, 3 splits" in wide
    assert max(map(len, wide.split("\n\n")[0].splitlines())) <= 140
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)[|]", line)) for line in lines] == [len(re.findall(r"[|]", lines[0]))] * 4
    assert "<script" not in markdown
    assert r"\_a\_" in markdown
    assert "| <0.001 |" in markdown
    assert all("&lt;script" in line for line in markdown.splitlines() if "alert" in line)
    body = [line for line in latex.splitlines() if not line.startswith("%")]
    assert len(body) == 8
    assert [line.replace(r"\&", "").count("&") for line in body if line.endswith(r"\\")] == [
        body[2].count("&")
    ] * 3
    assert r"\textbackslash{}input\{z\}" in latex
    assert r"50\%\textbackslash{}n" in latex
    [_, mean] = csv.DictReader(io.StringIO(render([section], "csv")))
    assert mean["system"] == f"{HOSTILE} + svm" == json.loads(render([section], "json"))[1]["system"]
    assert one_line in table.split("\n\n", 1)[1]  # the sentences
    assert render([], "csv") == ""


def test_an_older_record_is_evaluated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    record = run("cnn", "baseline", 0.6)
    whole = evaluate(record.predictions())
    file = record.folder / "record.json"
    content = json.loads(file.read_text())
    content["scores"] = {k: v for k, v in content["scores"].items() if k not in ("roc_auc", "top2_accuracy")}
    for entry in content["scores"]["per_class"]:
        del entry["roc_auc"]
    file.write_text(sealed(content))
    older = load_record(file)
    assert older.evaluation == whole
    section = section_of(older)
    assert as_dict(section.rows[0], section)["roc_auc"] == whole.roc_auc
    for broken in ({}, {**record.scores, "per_class": [1]}, {**record.scores, "from_tomorrow": 1}):
        content["scores"] = broken
        file.write_text(sealed(content))
        assert load_record(file).evaluation == whole
    (record.folder / "predictions.parquet").unlink()
    with pytest.raises(MgcError, match="cannot be read"):
        _ = load_record(file).evaluation
    # Complete scores are not computed again.
    monkeypatch.setattr("mgc.runs.record.evaluate", None)
    assert record.evaluation == Scores.from_dict(record.scores)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the committed results")
def test_the_committed_records_are_still_read() -> None:
    wanted = [next(REAL.glob(f"{name}-cv5-s0-*")) for name in ("cnn", "musicnn-logistic", "majority")]
    for folder in wanted:
        shutil.copytree(folder, here().results / "emotify" / folder.name)
    table = render(compare_records(load_records("emotify", workspace=here())), "table")
    assert re.search(r"musicnn \+ logistic \(0\.7\d\d\) against cnn \(0\.6\d\d\)", table)
    assert max(map(len, table.split("\n\n")[0].splitlines())) <= 140
