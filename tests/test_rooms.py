"""Which rooms may import which, and what the command line loads before a command runs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mgc

ROOMS = [
    "util", "config", "workspace", "evaluate", "audio", "data", "representations", "probing", "training",
    "runs", "predict", "experiments", "report", "cli",
]  # fmt: skip
SOURCE = Path(mgc.__file__).parent
FILES = sorted(path for path in SOURCE.rglob("*.py") if path.name not in ("__main__.py",))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module] if node.module != "mgc" else [f"mgc.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("mgc.")}
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_from_rooms_below(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        assert not imported_rooms(path)
        return
    above = set(ROOMS[ROOMS.index(room) + 1 :])
    assert not imported_rooms(path) & above


def test_every_room_is_in_the_list() -> None:
    assert {room_of(path) for path in FILES} - {"__init__"} == set(ROOMS)


def test_the_design_names_every_room_in_order() -> None:
    text = (SOURCE.parents[1] / "docs" / "design.md").read_text(encoding="utf-8")
    places = [text.index(f"| `mgc.{room}` |") for room in ROOMS]
    assert places == sorted(places)


def modules_after(code: str) -> set[str]:
    """The top-level modules, and `scipy.stats`, that a fresh process has loaded after `code`."""
    code += "\nimport sys\nprint('LOADED', *(m for m in sys.modules if '.' not in m or m == 'scipy.stats'))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(out.splitlines()[-1].split()[1:])


LEARNING = {
    "torch",
    "transformers",
    "accelerate",
    "sklearn",
    "skops",
    "scipy.stats",
    "librosa",
    "optuna",
    "datasets",
}


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys; sys.argv = ['mgc', '--help']
from mgc.cli import main
try: main()
except SystemExit: pass
"""
    assert not modules_after(code) & {
        *LEARNING,
        "numpy",
        "pandas",
        "pyarrow",
        "pydantic",
        "python_stretch",
        "joblib",
    }


def test_run_records_and_tables_load_nothing_heavy() -> None:
    assert not modules_after("import mgc.runs.listing, mgc.runs.record, mgc.runs.tables") & {
        *LEARNING,
        "pandas",
    }


def test_comparing_runs_loads_nothing_that_trains() -> None:
    """Reads a record and its predictions, and compares two runs."""
    code = """
import numpy as np
from mgc.evaluate import Predictions, compare_runs, evaluate
ids = [str(n) for n in range(40)]
half = np.full((40, 2), 0.5)
run = Predictions(classes=("a", "b"), track_ids=tuple(ids), labels=np.arange(40) % 2, probabilities=half,
                  groups=tuple(ids), fold=np.zeros(40, int))
evaluate(run); compare_runs([run], [run]); run.to_frame()
"""
    assert not modules_after(code) & LEARNING


def test_nothing_is_swallowed_or_left_open() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno} catches everything"
                assert not (len(node.body) == 1 and isinstance(node.body[0], ast.Pass)), (
                    f"{path}:{node.lineno}"
                )
