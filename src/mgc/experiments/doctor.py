"""`mgc doctor`: is an encoder fed what it wants, loaded whole, and better than one that has learned nothing?

Each question is answered by running the encoder, not by reading about it. For the last one the encoder and
its twin with random weights are probed alike, on all of the data set, by the one judge.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import torch

from mgc import audio, data
from mgc.config import DoctorRecipe, ProbeRecipe
from mgc.data import Dataset, Track
from mgc.evaluate import Verdict, paired
from mgc.experiments.systems import probe
from mgc.representations import Representation, open_representation, spec_of
from mgc.representations.card import Encoder
from mgc.representations.encoders.transformers_audio import RANDOM
from mgc.representations.features.logmel import statistics
from mgc.representations.pooling import represent
from mgc.util.devices import make_accelerator, tune_cpu
from mgc.util.errors import MgcError
from mgc.util.progress import Progress
from mgc.workspace import Workspace

Colour = Literal["green", "amber", "red"]
COLOURS: dict[Verdict, Colour] = {"better": "green", "no difference shown": "amber", "worse": "red"}
TOLERANCE = 1e-3  # of the largest value: what the order of float32 sums may cost
CONSTANT = 1e-5  # of the largest value: below this, float32 can hardly tell clips apart


@dataclass(frozen=True)
class Finding:
    """The answer to one question: green, red, or amber where nothing is shown either way."""

    verdict: Colour
    question: str
    answer: str

    def __str__(self) -> str:
        return f"{self.verdict:<5}  {self.question}: {self.answer}"


def examine(recipe: DoctorRecipe, workspace: Workspace) -> Iterator[Finding]:
    """One finding after another; the last takes by far the longest.

    Raises:
        MgcError: no such encoder, data, split or device.
    """
    spec = spec_of(recipe, recipe.model)
    representation = open_representation(spec, workspace, recipe.trust_remote_code)
    device = make_accelerator(recipe.device).device
    tune_cpu()
    dataset = data.load(recipe.data, workspace)
    clips = _spread(dataset, recipe.clips)
    try:
        encoder = representation.encoder(device)
    except MgcError as error:
        yield Finding("red", "weights", f"{error.what}; to do: {error.fix}")
        return
    yield _weights(representation, encoder)
    yield _rate(representation, encoder, clips[0])
    for finding in _outputs(representation, encoder, clips, device, recipe.batch_size):
        yield finding
        if finding.verdict == "red" and finding.question == "numbers":
            return  # nothing could be fitted on them
    yield _judged(representation, dataset, recipe, workspace)


def _spread(dataset: Dataset, wanted: int) -> list[Track]:
    """Different clips from all over the data set, so from several classes."""
    distinct = list({track.content: track for track in dataset.tracks}.values())
    if len(distinct) < 2:
        raise MgcError("two different clips are needed to tell them apart", where=dataset.name)
    places = np.linspace(0, len(distinct) - 1, min(wanted, len(distinct))).round().astype(int)
    return [distinct[place] for place in places]


def _weights(representation: Representation, encoder: Encoder) -> Finding:
    """Loading refuses weights that the checkpoint lacks; here, that all of them are numbers."""
    parts = [part for part in vars(encoder).values() if isinstance(part, torch.nn.Module)]
    if not parts:
        return Finding("green", "weights", "none to look at")
    model = torch.nn.ModuleList(parts)
    weights = dict(model.named_parameters()) | dict(model.named_buffers())
    bad = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if bad:
        return Finding("red", "weights", f"{len(bad)} of {len(weights)} tensors are not finite: {bad[0]}")
    count = sum(weight.numel() for weight in weights.values()) / 1e6
    origin = "drawn" if RANDOM in representation.name else "read from the checkpoint, none was made up"
    return Finding("green", "weights", f"all {count:.2f} million numbers {origin}")


def _rate(representation: Representation, encoder: Encoder, clip: Track) -> Finding:
    """The rate that the preprocessor says, that the card asks for, and that the loader delivers."""
    cut = representation.cut
    said = getattr(encoder, "sample_rate_hz", cut.sample_rate_hz)
    if said != cut.sample_rate_hz:
        return Finding(
            "red",
            "sample rate",
            f"the preprocessor says {said} Hz, the loader is asked for {cut.sample_rate_hz}",
        )
    came = sum(window.real - window.covered for window in audio.windows(clip.path, cut))
    if abs(came - clip.seconds * said) > cut.ignore + 0.05 * said:
        return Finding("red", "sample rate", f"{clip.seconds:.2f} s at {said} Hz came as {came} samples")
    return Finding(
        "green", "sample rate", f"{said} Hz asked for, and {came} samples of {clip.seconds:.2f} s came"
    )


def _outputs(
    representation: Representation, encoder: Encoder, clips: list[Track], device: torch.device, batch: int
) -> Iterator[Finding]:
    """What comes out, of all layers: alone and in a batch, twice, and of different clips."""
    paths = [clip.path for clip in clips]
    runs = []
    with Progress(f"examine {representation.name}", 3 * len(clips), "clips") as progress:
        for size in (batch, batch, 1):
            vectors = {}
            for position, array in represent(representation, encoder, paths, device, size):
                vectors[position] = (array if representation.pooled else statistics(array)).ravel()
                progress.step()
            runs.append(np.stack([vectors[position] for position in range(len(paths))]))
    together, again, alone = runs  # (clips, 2 width) each
    broken = [clip.track_id for clip, row in zip(clips, together, strict=True) if not np.isfinite(row).all()]
    if broken:
        yield Finding(
            "red", "numbers", f"{len(broken)} of {len(clips)} clips give NaN or infinity: {broken[0]}"
        )
        return
    yield Finding("green", "numbers", f"finite for {len(clips)} clips")
    largest = max(float(np.abs(together).max()), 1e-12)
    repeated, batched = (float(np.abs(together - other).max()) / largest for other in (again, alone))
    yield Finding(
        "green" if repeated == 0 else "amber" if repeated <= TOLERANCE else "red",
        "same input, same output",
        "to the bit" if repeated == 0 else f"differs by {repeated:.1e} of the largest value",
    )
    yield Finding(
        "green" if batched <= TOLERANCE else "red",
        "a batch gives what single windows give",
        f"within {batched:.1e} of the largest value ({TOLERANCE:g} is allowed)",
    )
    spread = float(together.std(axis=0).max()) / largest
    if spread < CONSTANT:
        yield Finding(
            "red", "reacts to the music", f"constant: clips differ by {spread:.1e} of the largest value"
        )
        return
    apart = min(float(np.linalg.norm(a - b)) for a, b in combinations(together, 2))
    same = max(float(np.linalg.norm(a - b)) for a, b in zip(together, alone, strict=True))
    yield Finding(
        "green" if apart > same else "red",
        "reacts to the music",
        f"the nearest two of {len(clips)} clips are {apart:.3g} apart, one clip twice at most {same:.3g}",
    )


def _judged(
    representation: Representation, dataset: Dataset, recipe: DoctorRecipe, workspace: Workspace
) -> Finding:
    """Probed alike on the split of the data, by the one judge."""
    question = "better than random weights"
    if RANDOM in representation.name:
        return Finding("amber", question, "not asked: its weights are random")
    twin = replace(representation.spec, random_seed=recipe.seed)
    try:
        open_representation(twin, workspace)
    except MgcError as error:
        return Finding("amber", question, f"not asked: {error.what}")
    records = [
        probe(
            ProbeRecipe(
                data=recipe.data, model=spec.name, random_weights=spec is twin, precision=spec.precision,
                seed=recipe.seed, device=recipe.device,
                trust_remote_code=recipe.trust_remote_code,
            ),
            workspace,
        )[0]
        for spec in (representation.spec, twin)
    ]  # fmt: skip
    gain = paired([records[0].predictions()], [records[1].predictions()])
    points = [f"{100 * value:+.1f}" for value in (gain.accuracy_difference, gain.low, gain.high)]
    told = (
        f"{gain.words}: {records[0].evaluation.accuracy:.3f} against {records[1].evaluation.accuracy:.3f}, "
        f"{points[0]} points [{points[1]}, {points[2]}] on {gain.n_tracks} tracks of {dataset.name}"
    )
    return Finding(COLOURS[gain.verdict], question, told)
