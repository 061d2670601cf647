"""The demo: the whole path from scores to a verdict, on a dataset rendered on this machine."""

from dataclasses import dataclass
from pathlib import Path

from mgc.config import BaselineRecipe, DataRecipe, Device, ProbeRecipe
from mgc.experiments.systems import baseline, probe
from mgc.runs.record import RunRecord, load_records
from mgc.runs.tables import compare_records, render
from mgc.workspace import Workspace

DATASET = "demo"
ENCODER = "musicnn"  # the encoder whose weights come from PyPI, so no other server is needed


@dataclass(frozen=True)
class Demo:
    """What the demo leaves: the table as text, the most accurate of its two runs, and a clip to try it on."""

    table: str
    best: RunRecord
    clip: Path


def demo(workspace: Workspace, *, device: Device = "auto", overwrite: bool = False) -> Demo:
    """Render the demo dataset, probe a frozen encoder, train a network from scratch, and compare them.

    Clips, embeddings and runs that exist are used again; with `overwrite` the network is trained again.

    Raises
    ------
    MgcError
        The extra `demo` is not installed, or the weights of the encoder can be neither found nor downloaded.
    """
    data = DataRecipe(source=DATASET)
    # The encoder first: if its weights cannot be downloaded, this shows before minutes of training.
    runs = probe(ProbeRecipe(data=data, model=ENCODER, device=device), workspace)
    runs.append(baseline(BaselineRecipe(data=data, device=device), workspace, overwrite))
    table = render(compare_records(load_records(DATASET, workspace)), "table")
    best = max(runs, key=lambda run: run.evaluation.accuracy)
    return Demo(table, best, min((workspace.data / DATASET).glob("*/*.flac")))
