"""`baseline` and `probe`: the only place that puts the rooms together."""

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError

from mgc import data
from mgc.config import BaselineRecipe, DataRecipe, Device, ProbeRecipe
from mgc.data import Dataset, Split, unevaluated_classes
from mgc.data.splits import REVISION as SPLIT
from mgc.evaluate import Predictions, evaluate
from mgc.probing.fitting import REVISION as FITTING
from mgc.probing.fitting import fit_folds
from mgc.probing.heads import find_head
from mgc.probing.heads.saving import save_head
from mgc.representations import ALTERED_PREFIX, Representation, address_of, open_representation
from mgc.representations.cache.embed import embed_tracks
from mgc.representations.cache.store import Store, kept
from mgc.runs.record import NAMES_ONLY, RunRecord, environment, load_record, save_curves, save_tracks
from mgc.runs.tables import write_tables
from mgc.training.augment import Augment
from mgc.training.folds import clear_partial, prepare, representations_of, train_folds
from mgc.training.loop import REVISION as TRAINING
from mgc.training.networks import find_network, resolved
from mgc.util.devices import make_accelerator, precision_of
from mgc.util.errors import MgcError
from mgc.util.progress import say
from mgc.workspace import Workspace


def baseline(recipe: BaselineRecipe, workspace: Workspace, overwrite: bool = False) -> RunRecord:
    """Train a network from scratch on every fold of the split; predict each test track once.

    A run of the same recipe, tracks and code that is complete is returned unchanged unless `overwrite`.

    Raises:
        MgcError: no such data, split, network or representation, or a network that cannot take it.
    """
    recipe = resolved(recipe)  # a wrong name, option or device fails before any work
    precision_of(recipe.train.precision, make_accelerator(recipe.device).device)
    dataset, split = load_dataset_and_split(recipe.data, workspace)
    Augment(recipe.augment, dataset.classes)
    representation = representations_of(recipe, workspace)[0]
    bench = _Bench(dataset, split, recipe.data, workspace)
    run = bench.run(recipe.network, "baseline", representation, "", recipe, recipe.seed)
    if not split.leaky:
        _floors(bench, recipe.device)
    if (run.folder / "record.json").exists() and not overwrite:
        say(f"run exists: {run.folder} (use --overwrite to repeat it)")
        return load_record(run.folder / "record.json")
    embedded = prepare(recipe, dataset, split, workspace)
    run.folder.mkdir(parents=True, exist_ok=True)
    try:
        results = train_folds(recipe, dataset, split, workspace, run.folder, overwrite)
    except (RuntimeError, SafetensorError) as error:
        # What torch.save says of a full disk, and what safetensors says.
        if "inline_container" not in str(error) and "I/O error" not in str(error):
            raise
        what, fix = (
            "weights cannot be written",
            "make room; the same command goes on from the last epoch kept",
        )
        raise MgcError(what, where=run.folder, fix=fix) from None
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
    record = run.finish(
        predictions,
        results[0].parameters,
        chosen,
        seconds,
        validation=bench.validation([result.validation for result in results]),
        frames=results[0].frames,
    )
    clear_partial(run.folder)
    write_tables(dataset.name, workspace)
    return record


def probe(recipe: ProbeRecipe, workspace: Workspace) -> list[RunRecord]:
    """Fit a small head on pooled embeddings, fold by fold; embed first what the store does not hold.

    Without a model, every representation whose vectors are in the store is probed.

    Raises:
        MgcError: no such data, split, encoder, head or layer; or nothing in the store to probe.
    """
    find_head(recipe.head)
    make_accelerator(recipe.device)
    models = []
    if recipe.model:  # what is not here is refused before any work
        models = [address_of(recipe.model, recipe.random_weights, recipe.seed, recipe.keep)]
        open_representation(models[0], workspace, recipe.trust_remote_code)
    elif recipe.random_weights:
        raise MgcError("random weights of which encoder?", fix="name it: --model ast --random-weights")
    dataset, split = load_dataset_and_split(recipe.data, workspace)
    bench = _Bench(dataset, split, recipe.data, workspace)
    if not split.leaky:
        _floors(bench, recipe.device)
    records = []
    for model in models or _kept_models(dataset, workspace):
        representation = open_representation(model, workspace, recipe.trust_remote_code)
        embedded = embed_tracks(dataset.tracks, representation, workspace, recipe.device)
        # The address says already whether weights are random and windows are kept.
        plain = {"model": model, "random_weights": False, "keep": "clip"}
        plain["pool"] = recipe.pool or representation.pool
        one = recipe.model_copy(update=plain)
        records.append(_probe(bench, representation, one, embedded.seconds))
    write_tables(dataset.name, workspace)
    return records


def _probe(bench: "_Bench", representation: Representation, recipe: ProbeRecipe, seconds: float) -> RunRecord:
    recipe = recipe.model_copy(update={"name": recipe.name or _title(representation, recipe)})
    run = bench.run(representation.name, "probe", representation, recipe.head, recipe, recipe.seed)
    return _fit_heads(bench, run, representation, recipe, seconds)


def _fit_heads(
    bench: "_Bench", run: "_Run", representation: Representation, recipe: ProbeRecipe, seconds: float
) -> RunRecord:
    heads, took = fit_folds(Store(representation, bench.workspace.cache), bench.dataset, bench.split, recipe)
    for number, head in enumerate(heads):
        save_head(head.fitted.classifier, run.folder / f"head{number}.safetensors")
    chosen = [{"fold": number, **head.to_record()} for number, head in enumerate(heads)]
    return run.finish(
        bench.predictions([head.test for head in heads]),
        heads[0].fitted.parameters,
        chosen,
        {"represent": seconds, "head": took},
        validation=bench.validation([head.validation for head in heads]),
    )


def _title(representation: Representation, recipe: ProbeRecipe) -> str:
    """The representation's name, with what is not its default: two rows of a table shall not look alike."""
    what = {"last": "", "sweep": "best layer", "weighted": "weighted layers"}.get(
        recipe.layers, recipe.layers
    )
    pool = "" if recipe.pool == representation.pool else recipe.pool
    other = ", ".join(word for word in (what, pool) if word)
    return f"{representation.name} ({other})" if other else ""


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
    representation = open_representation("logmel", bench.workspace)
    floor = bench.run("logmel statistics", "floor", representation, "logistic", recipe, seed)
    if not (floor.folder / "record.json").exists():
        embedded = embed_tracks(dataset.tracks, representation, bench.workspace, device)
        _fit_heads(bench, floor, representation, recipe, embedded.seconds)


def load_dataset_and_split(recipe: DataRecipe, workspace: Workspace) -> tuple[Dataset, Split]:
    """The tracks and the split of a recipe; what is left out, and a leak, are said.

    Raises:
        MgcError: no such data, or tracks that cannot be split so.
    """
    dataset = data.load(recipe, workspace)
    for line in data.by_reason(dataset.excluded):
        say(f"left out: {line}")
    split = data.make_split(dataset, recipe.split, recipe.split_seed)
    if recipe.per_class:
        split = data.subsample_training(split, recipe.per_class, recipe.per_class_seed)
    if split.leaky:
        say(f"this split leaks on purpose: {split.authority}")
    for line in unevaluated_classes(split):
        say(line)
    if len({dataset.by_id[track_id].group for track_id in split.tested}) < 2:
        raise MgcError(
            "all tested tracks are of one artist: nothing could be said of others",
            where=f"{dataset.name}, split {split.name}",
            fix="use --split cv5, or mend the split column",
        )
    return dataset, split


def _kept_models(dataset: Dataset, workspace: Workspace) -> list[str]:
    """Addresses of the encoders whose vectors of these tracks are in the store, as they are today."""
    models = []
    for card in kept(workspace.cache):
        address = str(card.get("address"))
        own_kind = card.get("keep") == "windows" or address.startswith(ALTERED_PREFIX)
        if not card.get("pooled") or own_kind or address in models:
            continue
        try:
            store = Store(open_representation(address, workspace), workspace.cache)
            missing = store.missing(track.content for track in dataset.tracks)
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
    workspace: Workspace

    def predictions(self, parts: Sequence[np.ndarray]) -> Predictions:
        """Predictions of all test sides; `parts` are (n_test, C), a fold each, in the order of its ids."""
        ids = [track_id for fold in self.split.folds for track_id in fold.test]
        folds = [number for number, fold in enumerate(self.split.folds) for _ in fold.test]
        return self._of(ids, np.concatenate(parts), folds)

    def validation(self, parts: Sequence[np.ndarray]) -> list[Predictions]:
        """The same of each fold's validation side; one track may stand on several of them."""
        sides = zip(self.split.folds, parts, strict=True)
        return [self._of(fold.val, part, [number] * len(part)) for number, (fold, part) in enumerate(sides)]

    def _of(self, ids: Sequence[str], probabilities: np.ndarray, folds: Sequence[int]) -> Predictions:
        tracks = [self.dataset.by_id[track_id] for track_id in ids]
        return Predictions(
            self.dataset.classes,
            tuple(ids),
            np.array(self.dataset.label_numbers(tracks)),
            probabilities.astype(np.float64),
            tuple(track.group for track in tracks),
            np.array(folds),
        )

    def run(
        self, system: str, kind: str, representation: Representation | None, head: str, recipe: Any, seed: int
    ) -> "_Run":
        """A run whose id follows from the recipe, the tracks, the split, the representation and the code."""
        # What the hashes cover, and what changes nothing, stays out: the same run has one id, wherever
        # the tracks and the weights lie.
        kept = recipe.model_dump(mode="json", exclude=NAMES_ONLY)
        code = " ".join(f"{what}={number}" for what, number in revisions_of(kind, recipe).items())
        fingerprint = representation.fingerprint if representation else None
        tracks = [self.dataset.hash, self.split.hash]
        parts = [system, kind, head, kept, *tracks, fingerprint, code]
        digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=4).hexdigest()
        words = [system, head, self.split.name, f"s{seed}", digest]
        run_id = "-".join(word.replace(" ", "_") for word in words if word)
        return _Run(self, system, kind, representation, head, recipe, seed, run_id, code)


def revisions_of(kind: str, recipe: Any) -> dict[str, int]:
    """Revisions of all that decides what this system learns, besides its representation."""
    if kind == "baseline":
        return {"split": SPLIT, "network": find_network(recipe.network).revision, "training": TRAINING}
    return {"split": SPLIT, "head": find_head(recipe.head).revision, "fitting": FITTING}


@dataclass(frozen=True)
class _Run:
    bench: _Bench
    system: str
    kind: str
    representation: Representation | None
    head: str
    recipe: Any
    seed: int
    run_id: str
    code: str

    @property
    def folder(self) -> Path:
        return self.bench.workspace.results_of(self.bench.dataset.name) / self.run_id

    def finish(
        self,
        predictions: Predictions,
        parameters: int,
        chosen: list[dict[str, Any]],
        seconds: dict[str, float],
        validation: Sequence[Predictions] = (),
        frames: int = 0,
    ) -> RunRecord:
        """Judge, and write the record."""
        dataset, split = self.bench.dataset, self.bench.split
        predictions.check_covers(split.tested)
        record = RunRecord(
            run_id=self.run_id,
            system=self.system,
            kind=self.kind,
            representation=self.representation.name if self.representation else "none",
            head=self.head,
            hypothesis=getattr(self.recipe, "hypothesis", ""),
            seed=self.seed,
            recipe=self.recipe.model_dump(mode="json"),
            data=dataset.name,
            data_hash=dataset.hash,
            licence=dataset.licence,
            split=split.name,
            split_authority=split.authority,
            split_hash=split.hash,
            leaky=split.leaky,
            training_tracks=sum(len(fold.train) for fold in split.folds) / len(split.folds),
            notes=[*dataset.notes, *unevaluated_classes(split)],
            name=getattr(self.recipe, "name", ""),
            reported=getattr(self.recipe, "reported", ""),
            excluded=[{key: str(value) for key, value in asdict(bad).items()} for bad in dataset.excluded],
            scores=evaluate(predictions).to_dict(),
            parameters=parameters,
            chosen=chosen,
            seconds=seconds,
            representation_card=self.representation.card() if self.representation else {},
            code=self.code,
            frames=frames,
            device=_device(self.recipe.device),
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            folder=self.folder,
            **environment(),
        )
        record.save(predictions, validation)
        save_tracks(dataset, self.folder.parent)
        return record


def _device(name: Device) -> str:
    kind = make_accelerator(name).device
    if kind.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(kind)}"
    return f"{kind.type}: {platform.machine()}, {os.cpu_count()} cores"
