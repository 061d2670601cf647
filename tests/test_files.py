"""Files that are there whole or not at all."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from mgc.util import files


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError) as caught:
        files.write(tmp_path / "file" / "within", "y")
    assert caught.value.filename == str(tmp_path / "file" / "within")


def test_a_figure_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    files.write_figure(Figure(), tmp_path / "a.png", dpi=20)
    before = (tmp_path / "a.png").read_bytes()
    assert before.startswith(b"\x89PNG")
    broken = Figure()
    broken.suptitle(r"$\frac and $")
    with pytest.raises(ValueError):
        files.write_figure(broken, tmp_path / "a.png", dpi=20)
    assert (tmp_path / "a.png").read_bytes() == before
    named = Figure()
    named.suptitle(files.as_label(r"$\frac and $"))
    files.write_figure(named, tmp_path / "b.svg")
    assert [*tmp_path.iterdir()] != [] and not [*tmp_path.glob("*.part")]
