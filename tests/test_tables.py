"""Tables: which runs are compared, corrections, sentences, and hostile names."""

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

from mgc.evaluate import Predictions, Scores, evaluate, holm, paired
from mgc.runs.record import RunRecord, load_record, load_records, sealed
from mgc.runs.tables import Section, as_dict, caption, compare_records, render, verdict_sentence, verdicts
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
    groups = tuple(f"artist {i // 3}" for i in range(N))
    return Predictions(("a", "b", "c"), ids, labels, probabilities, groups, np.zeros(N, int))


def run(system: str, path: str, right: float, **changes: Any) -> RunRecord:
    """A saved run, whose predictions depend on its system and seed."""
    seed = changes.get("seed", 0)
    predictions = predictions_of(right, sum(map(ord, system)) + seed)
    trained_on = "some tags" if changes.pop("pretrained", path == "probe") else "nothing"
    recipe = {"data": {"limit": None}, "seed": seed, "system": system}
    parts: dict[str, Any] = {
        "run_id": f"{path}-{system}-{seed}", "system": system, "kind": path, "representation": "logmel",
        "head": "svm" if path == "probe" else "", "hypothesis": "", "seed": seed, "recipe": recipe,
        "data": "set", "data_hash": "d", "licence": None, "split": "cv5", "split_authority": "folds",
        "split_hash": "s", "excluded": [], "scores": evaluate(predictions, n_bootstrap=40).to_dict(),
        "parameters": 7, "chosen": [], "seconds": {"train": 1.0}, "revisions": {"split": 1}, "commit": None,
        "versions": {}, "device": "cpu", "created": "2026-01-01",
        "representation_card": {"trained_on": trained_on},
    }  # fmt: skip
    record = RunRecord(**{**parts, **changes, "folder": here().results_of("set") / parts["run_id"]})
    record.save(predictions)
    return record


def section_of(*records: RunRecord) -> Section:
    [section] = compare_records(records)
    return section


def study() -> list[RunRecord]:
    return [
        run("majority", "floor", 0.33, pretrained=False),
        run("cnn", "baseline", 0.60),
        run("gru", "baseline", 0.64),
        run("mfcc", "probe", 0.62, pretrained=False),
        run("musicnn", "probe", 0.78),
        run("ast", "probe", 0.74),
    ]


def test_p_is_corrected_over_all_systems_except_floors() -> None:
    section = section_of(*study())
    rows = {row.system.record.system: row for row in section.rows}
    family = ["gru", "mfcc", "ast", "musicnn"]
    raw = []
    for name in family:
        alone = paired(rows[name].system.predictions, rows["cnn"].system.predictions)
        assert rows[name].versus is not None
        assert rows[name].versus.p_value == alone.p_value  # as it was
        raw.append(alone.p_value)
    assert [rows[name].p_holm for name in family] == pytest.approx(holm(raw))
    assert [rows[name].p_holm for name in ("majority", "cnn")] == [None, None]
    assert as_dict(rows["majority"])["verdict"] is None
    assert as_dict(rows["musicnn"])["verdict"] == "better"
    assert "Holm-corrected for the 4 systems" in " ".join(caption(section))
    sentences = verdicts(section)
    assert [sentence.split(" against ")[0] for sentence in sentences] == [
        "gru from scratch", "mfcc + svm", "ast + svm", "musicnn + svm",
    ]  # fmt: skip
    needed = as_dict(rows["gru"])["tracks_needed"]
    assert needed > N
    assert f"(needs about {needed:,} tracks to show" in sentences[0]


def test_a_verdict_falls_with_the_others() -> None:
    few = section_of(run("cnn", "baseline", 0.6), close := run("ast", "probe", 0.69))
    row = few.rows[-1]
    assert row.versus is not None
    assert (row.versus.verdict, 0.05 / 12 < row.p_holm < 0.05) == ("better", True)  # type: ignore[operator]
    others = [run(f"other {i}", "probe", 0.6) for i in range(12)]
    many = section_of(run("cnn", "baseline", 0.6), close, *others)
    [same] = [row.versus for row in many.rows if row.system.record == close]
    assert same is not None
    assert same.p_value == row.versus.p_value
    assert same.verdict == "no difference shown"


def test_verdict_sentence() -> None:
    records = study()
    section = section_of(*records)
    sentence = verdict_sentence(section)
    musicnn, gru = records[4], records[2]
    gain = paired([musicnn.predictions()], [gru.predictions()])
    assert sentence.startswith("A frozen pretrained encoder is better than a network from scratch here: ")
    assert f"musicnn + svm ({musicnn.evaluation.accuracy:.3f}, the best of 2) against gru (" in sentence
    assert f"{100 * gain.accuracy_difference:+.1f} points [" in sentence
    assert f"p = {2 * gain.p_value:.3g}, on 300 tracks by 100 artists." in sentence
    assert any("which is optimistic" in line for line in caption(section))
    lost = section_of(run("cnn", "baseline", 0.8), run("ast", "probe", 0.6))
    assert "is worse than a network from scratch here: ast + svm (" in verdict_sentence(lost)
    even = section_of(run("cnn", "baseline", 0.7), run("ast", "probe", 0.71))
    sentence = verdict_sentence(even)
    assert sentence.startswith(
        "A frozen pretrained encoder against a network from scratch: no difference shown ("
    )


def test_verdict_sentence_without_one_kind_of_system_or_below_a_floor() -> None:
    floor = run("logmel statistics", "floor", 0.9, pretrained=False)
    features = run("mfcc", "probe", 0.6, pretrained=False)
    twin = run("random", "probe", 0.6, representation_card={"trained_on": "nothing: random weights, seed 0"})
    sentence = verdict_sentence(section_of(floor, features, twin))
    assert sentence == (
        "Whether a frozen pretrained encoder is better than a network from scratch is unknown: there is no "
        "probe of a frozen pretrained encoder and no network from scratch."
    )
    cnn = run("cnn", "baseline", 0.6)
    sentence = verdict_sentence(section_of(floor, cnn, features))
    assert (
        "is unknown: there is no probe of a frozen pretrained encoder; best network from scratch: "
        in sentence
    )
    assert (
        f"cnn ({cnn.evaluation.accuracy:.3f}, the only one); the floor logmel statistics scores" in sentence
    )
    sentence = verdict_sentence(section_of(floor, cnn, run("ast", "probe", 0.75)))
    assert sentence.endswith(f"scores {floor.evaluation.accuracy:.3f}, more than ast + svm and cnn.")
    leaky = [dataclasses.replace(cnn, leaky=True), run("ast", "probe", 0.75, leaky=True)]
    assert verdict_sentence(section_of(*leaky)).startswith("On a split that leaks, a frozen")


def test_rows_of_several_seeds_show_means_of_all_scores() -> None:
    records = [run("cnn", "baseline", 0.6, seed=seed) for seed in range(3)]
    [row] = section_of(*records).rows
    cell = as_dict(row)
    for name in (
        "accuracy",
        "macro_f1",
        "balanced_accuracy",
        "roc_auc",
        "top2_accuracy",
        "calibration_error",
    ):
        mean = np.mean([getattr(record.evaluation, name) for record in records])
        assert cell[name] == pytest.approx(mean)
    for name in ("accuracy", "macro_f1", "balanced_accuracy", "roc_auc"):
        one = records[0].evaluation
        assert cell[f"{name}_low"] < cell[name] < cell[f"{name}_high"]
        narrower = cell[f"{name}_high"] - cell[f"{name}_low"]
        assert narrower < getattr(one, f"{name}_high") - getattr(one, f"{name}_low")


HOSTILE = 'x|y & <script>alert("1")</script> _a_ 50%\n\\input{z}, `c` *d* #$^~{}'


def test_hostile_names_do_not_break_any_format() -> None:
    section = section_of(run("cnn", "baseline", 0.6), run("ast", "probe", 0.8, name=HOSTILE))
    one_line = HOSTILE.replace("\n", "\\n")
    table, markdown, latex = (render([section], form) for form in ("table", "markdown", "latex"))
    assert max(map(len, table.split("\n\n")[0].splitlines())) <= 140
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
    assert mean["system"] == HOSTILE == json.loads(render([section], "json"))[1]["system"]
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
    assert as_dict(section_of(older).rows[0])["roc_auc"] == whole.roc_auc
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
    assert (
        "A frozen pretrained encoder is better than a network from scratch here: musicnn + logistic (0.762"
        in table
    )
    assert max(map(len, table.split("\n\n")[0].splitlines())) <= 140
