"""`mgc doctor`: check an encoder's input, weights and output, and that it beats its untrained twin.

Each check runs the encoder. For the last one the encoder and the same encoder with random weights are probed
on the whole dataset.
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
from mgc.evaluate import MARGIN, Predictions, compare_runs
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
TWIN = "better than random weights"
TOLERANCE = 1e-3  # relative to the largest value: what another order of float32 sums may change
CONSTANT = 1e-5  # relative to the largest value: below this, float32 hardly distinguishes clips


@dataclass(frozen=True)
class Check:
    """The result of one check; amber if it is inconclusive."""

    verdict: Colour
    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.verdict:<5}  {self.name}: {self.detail}"


def check_encoder(recipe: DoctorRecipe, workspace: Workspace) -> Iterator[Check]:
    """The checks of an encoder, one after another; the last takes by far the longest.

    Raises:
        MgcError: no such encoder, data, split or device.
    """
    spec = spec_of(recipe, recipe.model)
    representation = open_representation(spec, workspace)
    dataset = data.load(recipe.data, workspace)
    check = None
    for check in check_outputs(representation, dataset, recipe):
        yield check
    if check and check.name == "depends on the clip":  # otherwise no head can be fitted on the outputs
        yield _check_against_twin(representation, dataset, recipe, workspace)


def check_outputs(representation: Representation, dataset: Dataset, recipe: DoctorRecipe) -> Iterator[Check]:
    """The checks on a few clips: weights, sample rate and outputs."""
    device = make_accelerator(recipe.device).device
    tune_cpu()
    clips = _spread(dataset, recipe.clips)
    try:
        encoder = representation.encoder(device)
    except MgcError as error:
        yield Check("red", "weights", f"{error.what}; to do: {error.fix}")
        return
    yield _check_weights(representation, encoder)
    yield _check_sample_rate(representation, encoder, clips[0])
    batched, repeated, single = _outputs(representation, encoder, clips, device, recipe.batch_size)
    broken = [clip.track_id for clip, row in zip(clips, batched, strict=True) if not np.isfinite(row).all()]
    if broken:
        detail = f"NaN or infinity for {len(broken)} of {len(clips)} clips, the first is {broken[0]}"
        yield Check("red", "finite output", detail)
        return
    yield Check("green", "finite output", f"for {len(clips)} clips")
    yield from _check_stability(batched, repeated, single)


def _spread(dataset: Dataset, wanted: int) -> list[Track]:
    """Different clips from all parts of the dataset, hence from several classes."""
    distinct = list({track.content: track for track in dataset.tracks}.values())
    if len(distinct) < 2:
        raise MgcError("the checks need at least two different clips", where=dataset.name)
    places = np.linspace(0, len(distinct) - 1, min(wanted, len(distinct))).round().astype(int)
    return [distinct[place] for place in places]


def _check_weights(representation: Representation, encoder: Encoder) -> Check:
    """All weights are finite. Loading has refused weights that the checkpoint lacks."""
    parts = [part for part in vars(encoder).values() if isinstance(part, torch.nn.Module)]
    if not parts:
        return Check("green", "weights", "the representation has none")
    model = torch.nn.ModuleList(parts)
    weights = dict(model.named_parameters()) | dict(model.named_buffers())
    bad = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if bad:
        return Check("red", "weights", f"{len(bad)} of {len(weights)} tensors are not finite: {bad[0]}")
    count = sum(weight.numel() for weight in weights.values()) / 1e6
    origin = "randomly initialised" if RANDOM in representation.name else "read from the checkpoint"
    return Check("green", "weights", f"{count:.2f} million, all {origin}")


def _check_sample_rate(representation: Representation, encoder: Encoder, clip: Track) -> Check:
    """The rates of the preprocessor, of the representation and of the loaded audio agree."""
    cut = representation.cut
    rate = getattr(encoder, "sample_rate_hz", cut.sample_rate_hz)
    if rate != cut.sample_rate_hz:
        detail = f"the preprocessor expects {rate} Hz, the representation loads {cut.sample_rate_hz} Hz"
        return Check("red", "sample rate", detail)
    samples = sum(window.real - window.covered for window in audio.windows(clip.path, cut))
    right = abs(samples - clip.seconds * rate) <= cut.ignore + 0.05 * rate
    detail = f"{rate} Hz; a clip of {clip.seconds:.2f} s was loaded as {samples} samples"
    return Check("green" if right else "red", "sample rate", detail)


def _outputs(
    representation: Representation, encoder: Encoder, clips: list[Track], device: torch.device, batch: int
) -> list[np.ndarray]:
    """(clips, 2 D) of all layers, three times: in batches, in batches once more, and one by one."""
    paths = [clip.path for clip in clips]
    runs = []
    with Progress(f"check {representation.name}", 3 * len(clips), "clips") as progress:
        for size in (batch, batch, 1):
            rows = {}
            for position, array in represent(representation, encoder, paths, device, size):
                rows[position] = (array if representation.pooled else statistics(array)).ravel()
                progress.step()
            runs.append(np.stack([rows[position] for position in range(len(paths))]))
    return runs


def _check_stability(batched: np.ndarray, repeated: np.ndarray, single: np.ndarray) -> Iterator[Check]:
    """Equal input gives equal output, whatever the batch; different clips give different output."""
    largest = max(float(np.abs(batched).max()), 1e-12)
    repeat, batch = (float(np.abs(batched - other).max()) / largest for other in (repeated, single))
    colour: Colour = "green" if repeat == 0 else "amber" if repeat <= TOLERANCE else "red"
    detail = f"differs by {repeat:.1e} of the largest value" if repeat else "identical when repeated"
    yield Check(colour, "deterministic", detail)
    detail = f"differs by {batch:.1e} of the largest value ({TOLERANCE:g} is allowed)"
    yield Check("green" if batch <= TOLERANCE else "red", "independent of the batch", detail)
    spread = float(batched.std(axis=0).max()) / largest
    between = min(float(np.linalg.norm(a - b)) for a, b in combinations(batched, 2))
    within = max(float(np.linalg.norm(a - b)) for a, b in zip(batched, single, strict=True))
    if spread < CONSTANT:
        detail = f"constant: clips differ by {spread:.1e} of the largest value"
    else:
        nearest = f"the nearest two of {len(batched)} clips differ by {between:.3g}"
        detail = f"{nearest}, a clip from itself by at most {within:.3g}"
    yield Check("green" if spread >= CONSTANT and between > within else "red", "depends on the clip", detail)


def _check_against_twin(
    representation: Representation, dataset: Dataset, recipe: DoctorRecipe, workspace: Workspace
) -> Check:
    if RANDOM in representation.name:
        return Check("amber", TWIN, "skipped: its weights are random")
    spec = representation.spec
    try:
        open_representation(replace(spec, random_seed=recipe.seed), workspace)
    except MgcError as error:
        return Check("amber", TWIN, f"skipped: {error.what}")
    names = ("data", "seed", "device")
    shared = {"model": spec.name, "precision": spec.precision, **{n: getattr(recipe, n) for n in names}}
    pretrained, untrained = (
        probe(ProbeRecipe(**shared, random_weights=random), workspace)[0].predictions()
        for random in (False, True)
    )
    return compare_with_twin(pretrained, untrained, dataset.name)


def compare_with_twin(pretrained: Predictions, untrained: Predictions, data_name: str) -> Check:
    """Green if the pretrained weights are shown to be better than random ones, red if worse, else amber."""
    gain = compare_runs([pretrained], [untrained])
    own, other = (float(np.mean(p.predicted == p.labels)) for p in (pretrained, untrained))
    points, low, high = (f"{100 * x:+.1f}" for x in (gain.difference, gain.low, gain.high))
    difference = f"{points} points [{low}, {high}] on {gain.n_tracks} tracks of {data_name}"
    colours: dict[str, Colour] = {"better": "green", "worse": "red"}
    verdict = gain.verdict()
    word = f"equivalent within {100 * MARGIN:g} points" if verdict == "equivalent" else verdict
    detail = f"{word}: {own:.3f} against {other:.3f}, {difference}"
    return Check(colours.get(verdict, "amber"), TWIN, detail)
