"""`baseline` and `probe`: from a recipe to a run record."""

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
from mgc.probing.heads import find_head, weighted
from mgc.probing.heads.saving import save_head
from mgc.representations import ModelSpec, Representation, open_representation, spec_of
from mgc.representations.cache.embed import embed_tracks
from mgc.representations.cache.embeddings import EmbeddingCache, cards
from mgc.representations.derived import STRETCH_REVISION
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

AnyRecipe = BaselineRecipe | ProbeRecipe


def baseline(recipe: BaselineRecipe, workspace: Workspace, overwrite: bool = False) -> RunRecord:
    """Train a network from scratch on every fold of the split, and predict each test track once.

    A complete run of the same id is returned as it is unless `overwrite`.

    Raises:
        MgcError: unknown data, split, network or representation, or a network that cannot take it.
    """
    recipe = resolved(recipe)  # a wrong name, option or device fails before any work
    precision_of(recipe.train.precision, make_accelerator(recipe.device).device)
    dataset, split = load_dataset_and_split(recipe.data, workspace)
    Augment(recipe.augment, dataset.classes)
    representation = representations_of(recipe, workspace)[0]
    bench = _Bench(dataset, split, recipe.data, workspace)
    run = bench.run(recipe.network, "baseline", representation, "", recipe)
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
        # The messages of torch.save and of safetensors when the disk is full.
        if "inline_container" not in str(error) and "I/O error" not in str(error):
            raise
        fix = "free some space and run the same command again: it resumes from the last saved epoch"
        raise MgcError("weights cannot be written", where=run.folder, fix=fix) from None
    predictions = bench.predictions([result.probabilities for result in results])
    # Summed over folds, whether they ran in parallel or in several calls.
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
    """Fit a small head on pooled embeddings, fold by fold; embeddings that are not cached are computed first.

    Without a model, every representation whose embeddings of these tracks are cached is probed.

    Raises:
        MgcError: unknown data, split, encoder, head or layer; or nothing is cached that could be probed.
    """
    find_head(recipe.head)
    make_accelerator(recipe.device)
    specs = []
    if recipe.model:  # a missing encoder fails before any work
        specs = [spec_of(recipe, recipe.model)]
        open_representation(specs[0], workspace, recipe.trust_remote_code)
    elif recipe.random_weights:
        raise MgcError("--random-weights needs an encoder", fix="add --model ast, for example")
    dataset, split = load_dataset_and_split(recipe.data, workspace)
    bench = _Bench(dataset, split, recipe.data, workspace)
    if not split.leaky:
        _floors(bench, recipe.device)
    records = []
    for spec in specs or _cached_specs(dataset, workspace):
        representation = open_representation(spec, workspace, recipe.trust_remote_code)
        embedded = embed_tracks(dataset.tracks, representation, workspace, recipe.device)
        records.append(
            _probe(bench, representation, _probe_recipe(recipe, spec, representation), embedded.seconds)
        )
    write_tables(dataset.name, workspace)
    return records


def _probe_recipe(recipe: ProbeRecipe, spec: ModelSpec, representation: Representation) -> ProbeRecipe:
    """The recipe with the model that is probed, and its default pooling written out."""
    return recipe.model_copy(
        update={
            "model": spec.name,
            "random_weights": spec.random_seed is not None,
            "random_seed": None if spec.random_seed == recipe.seed else spec.random_seed,
            "keep": spec.keep,
            "precision": spec.precision,
            "pool": recipe.pool or representation.pool,
        }
    )


def _probe(bench: "_Bench", representation: Representation, recipe: ProbeRecipe, seconds: float) -> RunRecord:
    recipe = recipe.model_copy(update={"name": recipe.name or _title(representation, recipe)})
    run = bench.run(representation.name, "probe", representation, recipe.head, recipe)
    return _fit_heads(bench, run, representation, recipe, seconds)


def _fit_heads(
    bench: "_Bench", run: "_Run", representation: Representation, recipe: ProbeRecipe, seconds: float
) -> RunRecord:
    heads, took = fit_folds(
        EmbeddingCache(representation, bench.workspace.cache), bench.dataset, bench.split, recipe
    )
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
    """The representation's name with settings that are not its defaults, so that rows of a table differ."""
    layers = {"last": "", "sweep": "best layer", "weighted": "weighted layers"}.get(
        recipe.layers, recipe.layers
    )
    pool = "" if recipe.pool == representation.pool else recipe.pool
    other = ", ".join(word for word in (layers, pool) if word)
    return f"{representation.name} ({other})" if other else ""


def _floors(bench: "_Bench", device: Device) -> None:
    """What every system must beat: the most frequent class, and logistic regression on log-mel statistics.

    They do not depend on a seed, so they appear once in a table, whatever the seeds of the other runs.
    """
    dataset, split = bench.dataset, bench.split
    recipe = ProbeRecipe(data=bench.recipe, device=device)
    majority = bench.run("majority", "floor", None, "", recipe)
    if not (majority.folder / "record.json").exists():
        by_id = dataset.by_id
        parts = []
        for fold in split.folds:
            train = dataset.label_numbers([by_id[i] for i in fold.train])
            shares = np.bincount(train, minlength=len(dataset.classes)) / len(train)
            parts.append(np.tile(shares, (len(fold.test), 1)))
        majority.finish(bench.predictions(parts), 0, [], {})
    representation = open_representation("logmel", bench.workspace)
    floor = bench.run("logmel statistics", "floor", representation, "logistic", recipe)
    if not (floor.folder / "record.json").exists():
        embedded = embed_tracks(dataset.tracks, representation, bench.workspace, device)
        _fit_heads(bench, floor, representation, recipe, embedded.seconds)


def load_dataset_and_split(recipe: DataRecipe, workspace: Workspace) -> tuple[Dataset, Split]:
    """The tracks and the split of a recipe. Excluded tracks and leaks are reported.

    Raises:
        MgcError: unknown data, or tracks that cannot be split this way.
    """
    dataset = data.load(recipe, workspace)
    for line in data.by_reason(dataset.excluded):
        say(f"excluded: {line}")
    split = data.make_split(dataset, recipe.split, recipe.split_seed)
    if recipe.per_class:
        split = data.subsample_training(split, recipe.per_class, recipe.per_class_seed)
    if split.leaky:
        say(f"this split leaks on purpose: {split.authority}")
    for line in unevaluated_classes(split):
        say(line)
    if len({dataset.by_id[track_id].group for track_id in split.tested}) < 2:
        raise MgcError(
            "all test tracks are by one artist: the result would not hold for others",
            where=f"{dataset.name}, split {split.name}",
            fix="use --split cv5, or correct the split column",
        )
    return dataset, split


def _cached_specs(dataset: Dataset, workspace: Workspace) -> list[ModelSpec]:
    """The encoders whose up-to-date embeddings of all these tracks are cached, pooled over the clip."""
    specs: list[ModelSpec] = []
    for card in cards(workspace.cache):
        spec = ModelSpec.from_dict(card["spec"])
        if not card["pooled"] or spec.keep == "windows" or spec.alteration or spec in specs:
            continue
        try:
            cache = EmbeddingCache(open_representation(spec, workspace), workspace.cache)
            missing = cache.missing(track.content for track in dataset.tracks)
        except MgcError as error:
            say(f"not probed: {error.what}")
            continue
        if missing:
            say(f"not probed: {spec}: {len(missing)} tracks have no up-to-date embeddings")
        else:
            specs.append(spec)
    if not specs:
        raise MgcError(
            "no encoder has cached embeddings of these tracks",
            where=dataset.name,
            fix="run mgc embed --model musicnn, or mgc probe --model musicnn",
        )
    return specs


@dataclass(frozen=True)
class _Bench:
    """The tracks and the split that systems are run on."""

    dataset: Dataset
    split: Split
    recipe: DataRecipe
    workspace: Workspace

    def predictions(self, parts: Sequence[np.ndarray]) -> Predictions:
        """Predictions of all test sets; `parts` are (n_test, C) of each fold, in the order of its ids."""
        ids = [track_id for fold in self.split.folds for track_id in fold.test]
        folds = [number for number, fold in enumerate(self.split.folds) for _ in fold.test]
        return self._of(ids, np.concatenate(parts), folds)

    def validation(self, parts: Sequence[np.ndarray]) -> list[Predictions]:
        """The same for each fold's validation set; a track may be in several of them."""
        folds = enumerate(zip(self.split.folds, parts, strict=True))
        return [self._of(fold.val, part, [number] * len(part)) for number, (fold, part) in folds]

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
        self, system: str, kind: str, representation: Representation | None, head: str, recipe: AnyRecipe
    ) -> "_Run":
        """A run with its id and folder."""
        run_id, revisions = run_id_of(system, kind, head, recipe, self.split, representation)
        return _Run(self, system, kind, representation, head, recipe, run_id, revisions)


def run_id_of(
    system: str, kind: str, head: str, recipe: AnyRecipe, split: Split, representation: Representation | None
) -> tuple[str, dict[str, int]]:
    """The id of a run, and the revisions that are part of it.

    The id is a hash of the settings that differ from their defaults, the tracks, the split, the
    representation, and the revisions of what the run uses.
    """
    revisions = revisions_of(recipe) if representation else {"split": SPLIT}
    parts = {
        "system": [system, kind, head],
        "settings": settings_that_decide(recipe, representation),
        "tracks": [split.dataset.hash, split.hash],
        "representation": representation.key if representation else None,
        "revisions": revisions,
    }
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=4).hexdigest()
    words = [system, head, split.name, f"s{recipe.seed}", digest]
    return "-".join(word.replace(" ", "_") for word in words if word), revisions


def settings_that_decide(recipe: AnyRecipe, representation: Representation | None) -> dict[str, Any]:
    """The settings of a run that differ from their defaults, as they enter its id.

    A default that is written out is omitted too, so a new setting renames no run. Settings that hashes cover
    (tracks, encoder), and those that cannot change the result, are omitted as well.
    """
    plain: dict[str, Any] = {}
    if isinstance(recipe, BaselineRecipe):
        network = find_network(recipe.network)
        own = {"representation": network.representation, **network.options}
        plain = {key: None for key, value in own.items() if getattr(recipe, key) == value}
        if recipe.train.normalise == network.normalise:
            plain["train"] = recipe.train.model_copy(update={"normalise": None})
    elif representation:
        plain = {"pool": None} if recipe.pool == representation.pool else {}
        plain |= {"layers": "last"} if recipe.layers == representation.layers[-1].name else {}
    decisive = recipe.model_copy(update=plain)
    return decisive.model_dump(mode="json", exclude=NAMES_ONLY, exclude_defaults=True)


def revisions_of(recipe: AnyRecipe) -> dict[str, int]:
    """Revisions of the code that decides what a system learns, besides its representation; of what it uses
    only."""
    if isinstance(recipe, BaselineRecipe):
        used = {"split": SPLIT, "network": find_network(recipe.network).revision, "training": TRAINING}
        return used | (
            {"stretch": STRETCH_REVISION} if recipe.augment.pitch or recipe.augment.stretch else {}
        )
    head = weighted(1) if recipe.layers == "weighted" else find_head(recipe.head)
    return {"split": SPLIT, "head": head.revision, "fitting": FITTING}


@dataclass(frozen=True)
class _Run:
    bench: _Bench
    system: str
    kind: str
    representation: Representation | None
    head: str
    recipe: AnyRecipe
    run_id: str
    revisions: dict[str, int]

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
        """Evaluate, and write the record."""
        dataset, split = self.bench.dataset, self.bench.split
        predictions.check_covers(split.tested)
        record = RunRecord(
            run_id=self.run_id,
            system=self.system,
            kind=self.kind,
            representation=self.representation.name if self.representation else "none",
            head=self.head,
            hypothesis=self.recipe.hypothesis,
            seed=self.recipe.seed,
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
            name=self.recipe.name,
            reported=self.recipe.reported,
            excluded=[{key: str(value) for key, value in asdict(bad).items()} for bad in dataset.excluded],
            scores=evaluate(predictions).to_dict(),
            parameters=parameters,
            chosen=chosen,
            seconds=seconds,
            representation_card=self.representation.card() if self.representation else {},
            revisions=self.revisions,
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
