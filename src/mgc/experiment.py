"""`baseline` and `probe`: the only place that puts the rooms together."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mgc import data
from mgc.augment import Augment
from mgc.config import BaselineRecipe, DataRecipe, Device, MgcError, ProbeRecipe, results_dir
from mgc.data import Dataset, Split
from mgc.device import make_accelerator, precision_of
from mgc.embedding import embed_tracks
from mgc.evaluate import Predictions, evaluate
from mgc.folds import clear_partial, prepare, representations_of, train_folds
from mgc.heads import Fitted, find_head, fit_head
from mgc.models import find_network, make_network, options_of
from mgc.progress import say
from mgc.representations import Representation, open_representation
from mgc.representations.kinds import code_hash
from mgc.representations.logmel import statistics
from mgc.results import NAMES_ONLY, RunRecord, environment, load_record, save_curves
from mgc.store import Store, kept
from mgc.tables import write_tables

OPTIONS = ("dropout", "classifier_dropout", "scan")  # of networks; each knows some


def resolved(recipe: BaselineRecipe) -> BaselineRecipe:
    """The recipe with the network's own values where it leaves them open.

    Raises:
        MgcError: no such network or representation, or an option that the network does not know.
    """
    network = find_network(recipe.network)
    options = options_of(recipe.network, {key: getattr(recipe, key) for key in OPTIONS})
    own = {"representation": recipe.representation or network.representation, **options}
    train = recipe.train.model_copy(update={"normalise": recipe.train.normalise or network.normalise})
    augment = recipe.augment
    in_deviations = augment.noise or augment.mask or augment.strong_class
    if in_deviations and train.normalise not in ("track", "train"):
        raise MgcError(
            "noise and masks are in units of a normalised input: mean 0, deviation 1",
            where=f"augment, with train.normalise = {train.normalise!r}",
            fix="set train.normalise to track or train, or leave out noise, mask and strong_class",
        )
    return recipe.model_copy(update={**own, "train": train})


def baseline(recipe: BaselineRecipe, again: bool = False) -> RunRecord:
    """Train a network from scratch on every fold of the split; predict each test track once.

    A run of the same recipe, tracks and code that is complete is returned as it stands unless `again`.

    Raises:
        MgcError: no such data, split, network or representation, or a network that cannot take it.
    """
    recipe = resolved(recipe)  # a wrong name, option or device fails before any work
    precision_of(recipe.train.precision, make_accelerator(recipe.device).device)
    dataset, split = load_tracks(recipe.data)
    Augment(recipe.augment, dataset.classes)
    representation = representations_of(recipe)[0]
    bench = _Bench(dataset, split, recipe.data)
    run = bench.run(recipe.network, "baseline", representation, "", recipe, recipe.seed)
    if not split.leaky:
        _floors(bench, recipe.device)
    if (run.folder / "record.json").exists() and not again:
        say(f"this very run is there already: {run.folder} (--again repeats it)")
        return load_record(run.folder / "record.json")
    embedded = prepare(recipe, dataset, split)
    run.folder.mkdir(parents=True, exist_ok=True)
    results = train_folds(recipe, dataset, split, run.folder, again)
    predictions = bench.predictions([result.probabilities for result in results])
    # Added up over folds, whether they ran side by side or in several calls.
    seconds = {
        "represent": embedded,
        "train": sum(line.seconds for result in results for line in result.history),
    }
    lines = [
        {"fold": number, **asdict(line), "best": line.epoch == result.best_epoch}
        for number, result in enumerate(results)
        for line in result.history
    ]
    save_curves(run.folder, pd.DataFrame(lines))
    chosen = [{"fold": n, "epoch": r.best_epoch, "epochs": len(r.history)} for n, r in enumerate(results)]
    record = run.finish(predictions, results[0].parameters, chosen, seconds)
    clear_partial(run.folder)
    write_tables(dataset.name)
    return record


def probe(recipe: ProbeRecipe) -> list[RunRecord]:
    """Fit a small head on pooled embeddings, fold by fold; embed first what the store does not hold.

    Without a model, every representation whose vectors are in the store is probed.

    Raises:
        MgcError: no such data, split, encoder, head or layer; or nothing in the store to probe.
    """
    find_head(recipe.head)
    make_accelerator(recipe.device)
    dataset, split = load_tracks(recipe.data)
    bench = _Bench(dataset, split, recipe.data)
    if not split.leaky:
        _floors(bench, recipe.device)
    models = [recipe.model] if recipe.model else _kept_models(dataset)
    records = []
    for model in models:
        representation = open_representation(model)
        embedded = embed_tracks(dataset, representation, recipe.device)
        one = recipe.model_copy(update={"model": model, "pool": recipe.pool or representation.pool})
        records.append(_probe(bench, representation, one, embedded.seconds))
    write_tables(dataset.name)
    return records


def _probe(bench: "_Bench", representation: Representation, recipe: ProbeRecipe, seconds: float) -> RunRecord:
    run = bench.run(representation.name, "probe", representation, recipe.head, recipe, recipe.seed)
    vectors = _vectors(Store(representation), bench.dataset, recipe)
    predictions, fitted, took = _fit_folds(bench, vectors, recipe.head, recipe.seed)
    return run.finish(
        predictions, fitted[0].parameters, _choices(fitted), {"represent": seconds, "head": took}
    )


def _vectors(store: Store, dataset: Dataset, recipe: ProbeRecipe) -> np.ndarray:
    """(N, D) float32 in the order of the tracks, of the statistics that the recipe asks for."""
    clips = [track.content for track in dataset.tracks]
    if store.representation.pooled:
        pooled = store.pooled(clips, recipe.layer)  # (N, 2, D)
    else:
        pooled = np.stack([statistics(store.read(clip)) for clip in clips])
    pool = recipe.pool or store.representation.pool
    chosen = {"mean": pooled[:, :1], "std": pooled[:, 1:], "mean+std": pooled}[pool]
    return chosen.reshape(len(clips), -1)


def _fit_folds(
    bench: "_Bench", vectors: np.ndarray, head: str, seed: int
) -> tuple[Predictions, list[Fitted], float]:
    start = time.monotonic()
    labels = np.array(bench.dataset.label_numbers(bench.dataset.tracks))
    row = {track.track_id: index for index, track in enumerate(bench.dataset.tracks)}
    parts, fitted = [], []
    for fold in bench.split.folds:
        train, val, test = ([row[i] for i in side] for side in (fold.train, fold.val, fold.test))
        fit = fit_head(head, (vectors[train], labels[train]), (vectors[val], labels[val]), seed)
        fitted.append(fit)
        parts.append(fit.probabilities(vectors[test], len(bench.dataset.classes)))
    return bench.predictions(parts), fitted, time.monotonic() - start


def _choices(fitted: list[Fitted]) -> list[dict[str, Any]]:
    return [
        {"fold": number, "strength": fit.strength, "val_log_loss": {str(k): v for k, v in fit.tried.items()}}
        for number, fit in enumerate(fitted)
    ]


def _floors(bench: "_Bench", device: Device) -> None:
    """What any system must beat: the commonest class, and a line through log-mel statistics.

    Nothing in them is drawn, so they stand once in a table, whatever the seeds of the other runs.
    """
    dataset, split, seed = bench.dataset, bench.split, 0
    recipe = ProbeRecipe(data=bench.recipe, seed=seed, device=device)
    majority = bench.run("majority", "floor", None, "", recipe, seed)
    if not (majority.folder / "record.json").exists():
        by_id = dataset.by_id
        parts = []
        for fold in split.folds:
            learned = dataset.label_numbers([by_id[i] for i in fold.train])
            shares = np.bincount(learned, minlength=len(dataset.classes)) / len(learned)
            parts.append(np.tile(shares, (len(fold.test), 1)))
        majority.finish(bench.predictions(parts), 0, [], {})
    representation = open_representation("logmel")
    floor = bench.run("logmel statistics", "floor", representation, "logistic", recipe, seed)
    if not (floor.folder / "record.json").exists():
        embedded = embed_tracks(dataset, representation, device)
        vectors = _vectors(Store(representation), dataset, recipe)
        predictions, fitted, took = _fit_folds(bench, vectors, "logistic", seed)
        seconds = {"represent": embedded.seconds, "head": took}
        floor.finish(predictions, fitted[0].parameters, _choices(fitted), seconds)


def load_tracks(recipe: DataRecipe) -> tuple[Dataset, Split]:
    """The tracks and the split of a recipe; what is left out, and a leak, are said.

    Raises:
        MgcError: no such data, or tracks that cannot be split so.
    """
    dataset = data.load(recipe)
    for line in data.by_reason(dataset.excluded):
        say(f"left out: {line}")
    split = data.make_split(dataset, recipe.split, recipe.split_seed)
    if split.leaky:
        say(f"this split leaks on purpose: {split.authority}")
    return dataset, split


def _kept_models(dataset: Dataset) -> list[str]:
    """Addresses of the encoders whose vectors of these tracks are in the store, as they are today."""
    models = []
    for card in kept():
        address = str(card.get("address"))
        if not card.get("pooled") or address in models:
            continue
        try:
            missing = Store(open_representation(address)).missing(track.content for track in dataset.tracks)
        except MgcError as error:
            say(f"not probed: {error.what}")
            continue
        if not missing:
            models.append(address)
        else:
            say(f"not probed: {address}: the store lacks vectors (by today's code) of {len(missing)} tracks")
    if not models:
        raise MgcError(
            "the store holds no encoder's vectors of these tracks",
            where=dataset.name,
            fix="run mgc embed --model musicnn, or mgc probe --model musicnn",
        )
    return models


@dataclass(frozen=True)
class _Bench:
    """Tracks and a split, on which systems are run."""

    dataset: Dataset
    split: Split
    recipe: DataRecipe

    def predictions(self, parts: Sequence[np.ndarray]) -> Predictions:
        """Predictions of all test sides; `parts` are (n_test, C), a fold each, in the order of its ids."""
        ids = [track_id for fold in self.split.folds for track_id in fold.test]
        tracks = [self.dataset.by_id[track_id] for track_id in ids]
        return Predictions(
            self.dataset.classes,
            tuple(ids),
            np.array(self.dataset.label_numbers(tracks)),
            np.concatenate(parts).astype(np.float64),
            tuple(track.group for track in tracks),
            np.concatenate([np.full(len(fold.test), k) for k, fold in enumerate(self.split.folds)]),
        )

    def run(
        self, system: str, path: str, representation: Representation | None, head: str, recipe: Any, seed: int
    ) -> "_Run":
        """A run whose id follows from the recipe, the tracks, the split, the representation and the code."""
        # What the fingerprints cover, and what changes nothing, stays out: the same run has one id, wherever
        # the tracks and the weights lie.
        kept = recipe.model_dump(mode="json", exclude=NAMES_ONLY)
        code = learning_code(path, recipe)
        fingerprint = representation.fingerprint if representation else None
        tracks = [self.dataset.fingerprint, self.split.fingerprint]
        parts = [system, path, head, kept, *tracks, fingerprint, code]
        digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=4).hexdigest()
        words = [system, head, self.split.name, f"s{seed}", digest]
        run_id = "-".join(word.replace(" ", "_") for word in words if word)
        return _Run(self, system, path, representation, head, recipe, seed, run_id, code)


def learning_code(path: str, recipe: Any) -> str:
    """Hash of the code that decides what this system learns; that of other networks is none of it."""
    files = ["data/splits.py", "experiment.py"]
    if path != "baseline":
        return code_hash(*files, "heads.py")
    known = find_network(recipe.network)
    network = make_network(recipe.network, 2, max(known.min_bands, 64), known.max_frames or known.min_frames)
    modules = {type(part).__module__ for part in network.modules()}
    own = [f"{name.removeprefix('mgc.').replace('.', '/')}.py" for name in modules if name.startswith("mgc.")]
    return code_hash(*files, *sorted(own), "augment.py", "train.py", "folds.py")


@dataclass(frozen=True)
class _Run:
    bench: _Bench
    system: str
    path: str
    representation: Representation | None
    head: str
    recipe: Any
    seed: int
    run_id: str
    code: str

    @property
    def folder(self) -> Path:
        return results_dir() / self.bench.dataset.name / self.run_id

    def finish(
        self,
        predictions: Predictions,
        parameters: int,
        chosen: list[dict[str, Any]],
        seconds: dict[str, float],
    ) -> RunRecord:
        """Judge, and write the record."""
        dataset, split = self.bench.dataset, self.bench.split
        predictions.check_covers(split.tested)
        record = RunRecord(
            run_id=self.run_id,
            system=self.system,
            path=self.path,
            representation=self.representation.name if self.representation else "none",
            head=self.head,
            hypothesis=getattr(self.recipe, "hypothesis", ""),
            seed=self.seed,
            recipe=self.recipe.model_dump(mode="json"),
            data=dataset.name,
            data_fingerprint=dataset.fingerprint,
            licence=dataset.licence,
            split=split.name,
            split_authority=split.authority,
            split_fingerprint=split.fingerprint,
            leaky=split.leaky,
            learned=sum(len(fold.train) for fold in split.folds) / len(split.folds),
            notes=[*dataset.notes],
            name=getattr(self.recipe, "name", ""),
            reported=getattr(self.recipe, "reported", ""),
            excluded=[{key: str(value) for key, value in asdict(bad).items()} for bad in dataset.excluded],
            scores=evaluate(predictions).to_dict(),
            parameters=parameters,
            chosen=chosen,
            seconds=seconds,
            representation_card=self.representation.card() if self.representation else {},
            code=self.code,
            device=_device(self.recipe.device),
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            **environment(),
        )
        record.save(predictions)
        return record


def _device(name: Device) -> str:
    kind = make_accelerator(name).device
    if kind.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(kind)}"
    return f"{kind.type}: {platform.machine()}, {os.cpu_count()} cores"
