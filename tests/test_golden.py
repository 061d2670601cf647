"""Outputs of all that has a revision equal those stored in tests/golden, unless the revision was raised."""

import json
from pathlib import Path
from typing import Any

import pytest
from golden import entries as golden
from golden import rewrite
from golden.entries import NotHereError, differences, stored_revisions

from mgc.audio import effects
from mgc.representations.features import logmel, stats57
from mgc.training import augment
from mgc.training.networks import separable

ENTRIES = golden.entries()
REWRITE = "python tests/golden/rewrite.py"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variable comes too late if the hub's package was imported before."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def computed(name: str, folder: Path) -> golden.Outputs:
    try:
        return ENTRIES[name].compute(folder)
    except NotHereError as reason:
        pytest.skip(str(reason))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ENTRIES)
def test_outputs_change_only_with_a_raised_revision(name: str, tmp_path: Path) -> None:
    entry, stored = ENTRIES[name], stored_revisions(name)
    assert stored == entry.revisions, (
        f"{name} has the revisions {entry.revisions}, its stored outputs have {stored}: {REWRITE} {name!r}"
    )
    changed = differences(name, entry, computed(name, tmp_path))
    assert not changed, (
        f"the outputs of {name} changed: {'; '.join(changed)}. If this is intended, raise its revision "
        f"and run {REWRITE} {name!r}"
    )


def test_no_stored_output_is_left_over() -> None:
    assert {file.name for file in golden.FOLDER.glob("*.npz")} == {
        golden.file_of(name).name for name in ENTRIES
    }
    assert sum(file.stat().st_size for file in golden.FOLDER.iterdir() if file.is_file()) < 300_000


def test_cache_keys_are_those_of_every_python_version() -> None:
    """The suite runs under several interpreters and librosa versions, which must agree on every key."""
    assert golden.keys() == json.loads((golden.FOLDER / "keys.json").read_text()), f"run {REWRITE} keys"


def test_a_default_changes_only_with_a_raised_revision() -> None:
    """Run ids omit defaults. A new setting needs no raised revision."""
    now, before = golden.defaults(), json.loads((golden.FOLDER / "defaults.json").read_text())
    for group, stored in before.items():
        current = now.get(group, stored)
        if current["revision"] > stored["revision"]:
            pytest.fail(f"the revision of {group} was raised: run {REWRITE} defaults")
        changed = {key for key in stored if key in current and current[key] != stored[key]}
        assert not changed, f"{group}: the defaults of {changed} changed: raise the revision"


@pytest.mark.parametrize(
    ("name", "module", "constant", "value"),
    [
        ("logmel", logmel, "TOP_DB", 40.0),
        ("stats57", stats57, "MEDIAN_FRAMES", 29),
        ("network efficient_cnn", separable, "WIDTH", 64),
        ("training augmented", augment, "STRONG_MASK", (0.2, 0.3)),
        ("effect lowpass", effects, "FILTER_ORDER", 6),
    ],
)
def test_a_changed_constant_is_found(
    name: str, module: Any, constant: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, constant, value)
    assert differences(name, ENTRIES[name], computed(name, tmp_path))


def test_rewrite_refuses_an_entry_whose_revision_did_not_rise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = golden.file_of("logmel").read_bytes()
    assert rewrite.rewrite(["logmel"]) == 0
    assert "logmel: unchanged" in capsys.readouterr().out
    monkeypatch.setattr(logmel, "TOP_DB", 40.0)
    assert rewrite.rewrite(["logmel"]) == 1
    assert "logmel: REFUSED" in capsys.readouterr().out
    assert golden.file_of("logmel").read_bytes() == before
