"""Cache keys and run ids: what changes them, and what does not."""

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import here
from golden.entries import keys, table
from pydantic import Field, create_model

import mgc
from mgc.audio.effects import Alteration
from mgc.config import AugmentRecipe, BaselineRecipe, DataRecipe, ProbeRecipe, TrainRecipe
from mgc.data import make_split
from mgc.experiments import systems
from mgc.experiments.systems import run_id_of
from mgc.probing.heads import HEADS
from mgc.representations import ModelSpec, open_representation
from mgc.training.networks import NETWORKS, resolved
from mgc.util.errors import MgcError

SPLIT = make_split(table(), "holdout", 0)


def baseline_id(recipe: BaselineRecipe) -> str:
    card = open_representation(resolved(recipe).representation or "logmel", here())
    return run_id_of(recipe.network, "baseline", "", resolved(recipe), SPLIT, card)[0]


def probe_id(recipe: ProbeRecipe, model: ModelSpec | str = "musicnn") -> str:
    card = open_representation(model, here())
    return run_id_of(card.name, "probe", recipe.head, recipe, SPLIT, card)[0]


# --- run ids ----------------------------------------------------------------------------------------------


def test_a_default_that_is_written_out_changes_no_id() -> None:
    written = BaselineRecipe(
        network="cnn", representation="logmel", dropout=0.25,
        train=TrainRecipe(epochs=200, normalise="track"),
        augment=AugmentRecipe(noise=0.0), seed=0,
    )  # fmt: skip
    assert baseline_id(written) == baseline_id(BaselineRecipe())
    card = open_representation("musicnn", here())
    written_probe = ProbeRecipe.model_validate({"layers": card.layers[-1].name, "pool": card.pool})
    assert probe_id(written_probe) == probe_id(ProbeRecipe())


def test_what_cannot_change_the_result_changes_no_id() -> None:
    data = DataRecipe(source="elsewhere")
    other = BaselineRecipe(name="a title", hypothesis="none", reported="0.9", device="cpu", data=data)
    assert baseline_id(other) == baseline_id(BaselineRecipe())
    other_probe = ProbeRecipe(name="a title", model="moved/musicnn", data=data)
    assert probe_id(other_probe) == probe_id(ProbeRecipe())


def test_every_setting_that_differs_has_an_id_of_its_own() -> None:
    recipes = [
        BaselineRecipe(),
        BaselineRecipe(seed=1),
        BaselineRecipe(dropout=0.3),
        BaselineRecipe(network="gru"),
        BaselineRecipe(representation="mfcc", network="gru"),
        BaselineRecipe(train=TrainRecipe(epochs=3)),
        BaselineRecipe(train=TrainRecipe(normalise="train")),
        BaselineRecipe(augment=AugmentRecipe(pitch=(2.0,))),
    ]
    ids = {baseline_id(recipe) for recipe in recipes}
    probes = [ProbeRecipe(), ProbeRecipe(seed=1), ProbeRecipe(head="knn")]
    probes += [ProbeRecipe(layers="sweep"), ProbeRecipe(pool="max")]
    ids |= {probe_id(recipe) for recipe in probes}
    ids |= {probe_id(ProbeRecipe(), ModelSpec("musicnn", keep="windows"))}
    ids |= {probe_id(ProbeRecipe(), ModelSpec("musicnn", precision="bfloat16"))}
    assert len(ids) == len(recipes) + len(probes) + 2


def test_a_new_setting_renames_no_run() -> None:
    extended = create_model("Extended", __base__=ProbeRecipe, warmth=(float, Field(0.5)))
    assert probe_id(extended()) == probe_id(ProbeRecipe())
    assert probe_id(extended(warmth=0.6)) != probe_id(ProbeRecipe())


def test_only_revisions_of_what_a_run_uses_count(monkeypatch: pytest.MonkeyPatch) -> None:
    cnn, knn, plain = BaselineRecipe(), ProbeRecipe(head="knn"), ProbeRecipe()
    before = baseline_id(cnn), probe_id(knn), probe_id(plain)
    monkeypatch.setitem(NETWORKS, "gru", replace(NETWORKS["gru"], revision=2))
    monkeypatch.setitem(HEADS, "svm", replace(HEADS["svm"], revision=2))
    monkeypatch.setattr(systems, "STRETCH_REVISION", 2)
    assert (baseline_id(cnn), probe_id(knn), probe_id(plain)) == before
    monkeypatch.setitem(NETWORKS, "cnn", replace(NETWORKS["cnn"], revision=2))
    monkeypatch.setitem(HEADS, "knn", replace(HEADS["knn"], revision=2))
    assert baseline_id(cnn) != before[0]
    assert probe_id(knn) != before[1]
    assert probe_id(plain) == before[2]
    monkeypatch.setattr(systems, "SPLIT", 2)
    assert probe_id(plain) != before[2]


# --- specs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("musicnn"),
        ModelSpec("ast", random_seed=0),
        ModelSpec("a/folder", keep="windows", precision="bfloat16"),
        ModelSpec("logmel", alteration=Alteration("crop", 0.5)),
        ModelSpec("logmel", pitch_semitones=-2.0, stretch_rate=1.1),
    ],
)
def test_a_spec_survives_a_record(spec: ModelSpec) -> None:
    assert ModelSpec.from_dict(spec.to_dict()) == spec
    assert spec.to_dict()["name"] == spec.name


def test_a_spec_of_a_newer_version_is_an_error() -> None:
    with pytest.raises(MgcError, match="cannot be read"):
        ModelSpec.from_dict({"name": "ast", "quantised": 8})


# --- code -------------------------------------------------------------------------------------------------

PRINT = """
import sys
sys.path[:0] = sys.argv[1:]
from mgc.config import BaselineRecipe, ProbeRecipe
from test_identity import baseline_id, keys, probe_id
print(keys(), baseline_id(BaselineRecipe()), probe_id(ProbeRecipe()))
"""


def identities(package: Path) -> str:
    """Keys and run ids as another copy of the package computes them."""
    paths = [str(package), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", PRINT, *paths], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(package)},
    )  # fmt: skip
    return done.stdout


def test_words_and_names_in_the_code_change_no_key_and_no_id(tmp_path: Path) -> None:
    """Of a copy in which docstrings, comments and messages differ and variables are renamed."""
    original = Path(mgc.__file__).parent
    copy = shutil.copytree(original, tmp_path / "mgc", ignore=shutil.ignore_patterns("__pycache__"))
    changed = 0
    for file in copy.rglob("*.py"):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                node.body[0] = ast.Expr(ast.Constant("Other words."))
        text = ast.unparse(tree)
        text, renamed = re.subn(r"\b(squares|decibels|waiting|learned|shares)\b", r"\1_renamed", text)
        text, reworded = re.subn(r"MgcError\((f?)(['\"])", r"MgcError(\1\2In other words: ", text)
        changed += bool(renamed) + bool(reworded)
        file.write_text(text)
    assert changed > 40
    assert identities(tmp_path) == f"{keys()} {baseline_id(BaselineRecipe())} {probe_id(ProbeRecipe())}\n"
