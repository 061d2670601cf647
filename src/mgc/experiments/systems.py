"""`baseline` and `probe`: from a recipe to a run record."""

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import torch

from mgc import data
from mgc.config import BaselineRecipe, DataRecipe, ProbeRecipe
from mgc.data import Dataset, Split, unevaluated_classes
from mgc.data.splits import REVISION as SPLIT
from mgc.evaluate import MIN_SEEDS, Predictions, evaluate
from mgc.predict.novelty import NOVELTY, Novelty
from mgc.probing.fitting import REVISION as FITTING
from mgc.probing.fitting import fit_folds
from mgc.probing.heads import find_head, parameters_of, weighted
from mgc.probing.heads.saving import save_head
from mgc.representations import ModelSpec, Representation, open_representation, spec_of
from mgc.representations.cache.embed import embed_tracks
from mgc.representations.cache.embeddings import EmbeddingCache, cards
from mgc.representations.derived import STRETCH_REVISION
from mgc.runs.commands import variant_of
from mgc.runs.record import (
    NAMES_ONLY,
    RunRecord,
    environment,
    load_record,
    load_records,
    save_curves,
    save_tracks,
)
from mgc.runs.tables import systems_of, write_tables
from mgc.training.augment import Augment
from mgc.training.folds import FoldResult, clear_partial, prepare, representations_of, train_folds
from mgc.training.loop import REVISION as TRAINING
from mgc.training.networks import find_network, resolved
from mgc.util import files
from mgc.util.devices import make_accelerator, precision_of
from mgc.util.errors import MgcError, counted
from mgc.util.progress import duration, say
from mgc.util.workers import cores
from mgc.workspace import Workspace

AnyRecipe = BaselineRecipe | ProbeRecipe


def baseline(recipe: BaselineRecipe, workspace: Workspace, overwrite: bool = False) -> RunRecord:
    """Train a network from scratch on every fold of the split, and predict each test track once.

    A complete run of the same id is returned as it is unless `overwrite`.

    Raises:
        MgcError: unknown data, split, network or representation, or a network that cannot take it.
    """
    [run] = baselines([recipe], workspace, overwrite)
    if isinstance(run, MgcError):
        raise run
    return run


def baselines(
    recipes: Sequence[BaselineRecipe], workspace: Workspace, overwrite: bool = False
) -> Iterator[RunRecord | MgcError]:
    """As `baseline`, for recipes that differ in their seeds: the folds of all of them are trained together.

    Yields the runs that exist, then the others, or the error of a training. The first run shows how long the
    others take, which is reported.
    """
    recipes = [resolved(recipe) for recipe in recipes]  # a wrong name, option or device fails before any work
    precision_of(recipes[0].train.precision, make_accelerator(recipes[0].device).device)
    splits = {data: load_dataset_and_split(data, workspace)[1] for data in {r.data: 0 for r in recipes}}
    runs = []
    for recipe in recipes:
        split = splits[recipe.data]
        Augment(recipe.augment, split.dataset.classes)
        representation = representations_of(recipe, workspace)[0]
        run = _new_run(recipe.network, "baseline", "", recipe, split, representation, workspace)
        _run_floors(recipe, split, workspace)
        runs.append((recipe, split, representation, run))
    with ExitStack() as locks:
        for folder in sorted(run.folder for *_, run in runs):  # in one order: no deadlock
            locks.enter_context(files.lock(folder))
        known, todo = [], []
        for recipe, split, representation, run in runs:
            if (run.folder / "record.json").exists() and not overwrite:
                say(f"run exists: {run.folder} (use --overwrite to repeat it)")
                record = load_record(run.folder / "record.json", weights=True)
                if not (run.folder / NOVELTY).exists():  # an older version recorded it
                    prepare(recipe, split.dataset, split, workspace)
                    _save_novelty(run, split, representation, workspace)
                    record = record.save(record.predictions())
                known.append(record)
                yield record
                continue
            seconds = {"represent": prepare(recipe, split.dataset, split, workspace)}
            locks.enter_context(run.replacing())
            _save_novelty(run, split, representation, workspace)
            todo.append((recipe, split, replace(run, seconds=seconds)))
        del known[:-1]
        trained = train_folds([(r, split, run.folder) for r, split, run in todo], workspace, overwrite)
        for number, (_, split, run) in enumerate(todo):
            if len(known) == 1 and number < 2:
                left = len(todo) - number
                say(f"{counted(left, 'more run')} of {run.title}: about {cost(known[0], left)}")
            results = next(trained)
            if isinstance(results, MgcError):
                yield MgcError(results.what, where=results.where or run.run_id, fix=results.fix)
                continue
            known.append(_save_trained(run, split, results))
            write_tables(run.data, workspace)
            yield known[-1]


def _save_trained(run: RunRecord, split: Split, results: Sequence[FoldResult]) -> RunRecord:
    curves = pd.DataFrame(
        {"fold": number, **asdict(epoch), "best": epoch.epoch == result.best_epoch}
        for number, result in enumerate(results)
        for epoch in result.history
    )
    save_curves(run.folder, curves)
    # Of all folds, also of those that earlier calls trained.
    seconds = run.seconds | {"train": sum(curves["seconds"].tolist())}
    chosen = [{"fold": n, "epoch": r.best_epoch, "epochs": len(r.history)} for n, r in enumerate(results)]
    run = replace(
        run, parameters=results[0].parameters, chosen=chosen, seconds=seconds, frames=results[0].frames
    )
    record = _finish(run, split, [r.probabilities for r in results], [r.validation for r in results])
    clear_partial(run.folder)
    return record


def cost(record: RunRecord, runs: int) -> str:
    """How long as many more runs of its recipe take on this machine, in words."""
    seconds = {"train": 0.0, "head": 0.0} | record.seconds
    at_once = cores() if record.device.startswith("cpu") and len(record.chosen) > 1 else 1
    embedding = seconds["represent"] if record.recipe.get("random_weights") else 0
    return duration(runs * (seconds["train"] / at_once + seconds["head"] + embedding))


def missing_seeds(record: RunRecord, workspace: Workspace) -> int:
    """How many runs with other seeds a verdict on this system needs."""
    systems = systems_of(load_records(record.data, workspace))
    [own] = [s.records for s in systems if record.run_id in {one.run_id for one in s.records}]
    seeds = {one.seed for one in own}
    if not record.random or record.leaky or len(seeds) >= MIN_SEEDS:
        return 0
    return len({*range(MIN_SEEDS)} - seeds)


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
        open_representation(specs[0], workspace)
    elif recipe.random_weights:
        raise MgcError("--random-weights needs an encoder", fix="add --model ast, for example")
    dataset, split = load_dataset_and_split(recipe.data, workspace)
    _run_floors(recipe, split, workspace)
    records = []
    for spec in specs or _cached_specs(dataset, workspace):
        representation = open_representation(spec, workspace)
        one = _probe_recipe(recipe, spec, representation)
        run = _new_run(representation.name, "probe", one.head, one, split, representation, workspace)
        records.append(_fit_heads(run, one, split, representation, workspace))
    write_tables(dataset.name, workspace)
    return records


def _probe_recipe(recipe: ProbeRecipe, spec: ModelSpec, representation: Representation) -> ProbeRecipe:
    """The recipe with the model that is probed, its default pooling written out, and a name.

    The name contains settings that are not the defaults, so that rows of a table differ.
    """
    pool = recipe.pool or representation.pool
    known = {"last": "", "sweep": "best layer", "weighted": "weighted layers"}
    other = [known.get(recipe.layers, recipe.layers), pool if pool != representation.pool else ""]
    title = f"{representation.name} ({', '.join(filter(None, other))})" if any(other) else ""
    return recipe.model_copy(
        update={
            "name": recipe.name or title,
            "model": spec.name,
            "random_weights": spec.random_seed is not None,
            "random_seed": None if spec.random_seed == recipe.seed else spec.random_seed,
            "keep": spec.keep,
            "precision": spec.precision,
            "pool": pool,
        }
    )


def _fit_heads(
    run: RunRecord, recipe: ProbeRecipe, split: Split, representation: Representation, workspace: Workspace
) -> RunRecord:
    embedded = embed_tracks(split.dataset.tracks, representation, workspace, recipe.device)
    cache = EmbeddingCache(representation, workspace.cache)
    heads, seconds = fit_folds(cache, split.dataset, split, recipe)
    run = replace(
        run,
        parameters=parameters_of(heads[0].classifier),
        chosen=[{"fold": number, **head.to_record(recipe.select)} for number, head in enumerate(heads)],
        seconds={"represent": embedded.seconds, "head": seconds},
    )
    with run.replacing():
        _save_novelty(run, split, representation, workspace)
        for number, head in enumerate(heads):
            save_head(head.classifier, run.folder / f"head{number}.safetensors")
        return _finish(run, split, [head.test for head in heads], [head.validation for head in heads])


def _run_floors(recipe: AnyRecipe, split: Split, workspace: Workspace) -> None:
    """What every system must beat: the most frequent class, and logistic regression on log-mel statistics.

    They do not depend on a seed, so they appear once in a table, whatever the seeds of the other runs.
    """
    if split.leaky:
        return
    recipe, dataset = ProbeRecipe(data=recipe.data, device=recipe.device), split.dataset
    logmel = open_representation("logmel", workspace)
    for system, head, representation in (("majority", "", None), ("logmel statistics", "logistic", logmel)):
        floor = _new_run(system, "floor", head, recipe, split, representation, workspace)
        with suppress(MgcError):  # missing or damaged
            load_record(floor.folder / "record.json", weights=True)
            continue
        if representation:
            _fit_heads(floor, recipe, split, representation, workspace)
            continue
        parts = []
        for fold in split.folds:
            train = dataset.label_numbers([dataset.by_id[i] for i in fold.train])
            shares = np.bincount(train, minlength=len(dataset.classes)) / len(train)
            parts.append(np.tile(shares, (len(fold.test), 1)))
        _finish(floor, split, parts)


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
        what = "all test tracks are by one artist: the result would not hold for others"
        fix = "use --split cv5, or correct the split column"
        raise MgcError(what, where=f"{dataset.name}, split {split.name}", fix=fix)
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
    """Revisions of the code that a system uses, besides its representation."""
    if isinstance(recipe, BaselineRecipe):
        used = {"split": SPLIT, "network": find_network(recipe.network).revision, "training": TRAINING}
        varied = recipe.augment.pitch or recipe.augment.stretch
        return used | ({"stretch": STRETCH_REVISION} if varied else {})
    head = weighted(1) if recipe.layers == "weighted" else find_head(recipe.head)
    return {"split": SPLIT, "head": head.revision, "fitting": FITTING}


# ---- records --------------------------------------------------------------------------------------------


def _new_run(
    system: str,
    kind: str,
    head: str,
    recipe: AnyRecipe,
    split: Split,
    representation: Representation | None,
    workspace: Workspace,
) -> RunRecord:
    """The record of a run that has no results yet."""
    run_id, revisions = run_id_of(system, kind, head, recipe, split, representation)
    dataset, device = split.dataset, make_accelerator(recipe.device).device
    cores = f"{platform.machine()}, {os.cpu_count()} cores"
    run = RunRecord(
        run_id=run_id,
        folder=workspace.results_of(dataset.name) / run_id,
        system=system,
        kind=kind,
        representation=representation.name if representation else "none",
        head=head,
        recipe=recipe.model_dump(mode="json"),
        **recipe.model_dump(include={"hypothesis", "seed", "name", "reported"}),
        data=dataset.name,
        data_hash=dataset.hash,
        licence=dataset.licence,
        excluded=[{key: str(value) for key, value in asdict(bad).items()} for bad in dataset.excluded],
        notes=[*dataset.notes, *unevaluated_classes(split)],
        split=split.name,
        split_authority=split.authority,
        split_hash=split.hash,
        leaky=split.leaky,
        training_tracks=sum(len(fold.train) for fold in split.folds) / len(split.folds),
        representation_card=representation.card() if representation else {},
        revisions=revisions,
        device=f"{device.type}: {torch.cuda.get_device_name(device) if device.type == 'cuda' else cores}",
        **environment(),
        scores={},
        parameters=0,
        chosen=[],
        seconds={},
        created="",
    )
    return replace(run, variant="" if kind == "floor" else variant_of(run))


def _save_novelty(run: RunRecord, split: Split, representation: Representation, workspace: Workspace) -> None:
    cache = EmbeddingCache(representation, workspace.cache)
    Novelty.fit(cache, split.dataset).save(run.folder / NOVELTY)


def _finish(
    run: RunRecord, split: Split, test: Sequence[np.ndarray], validation: Sequence[np.ndarray] = ()
) -> RunRecord:
    """Evaluate the probabilities (n, C) of each fold's test tracks, and write the record.

    `validation` are those of the validation tracks; a track may be in several of these sets.
    """
    folds = split.folds
    predictions = _predictions(split, [fold.test for fold in folds], test, range(len(folds)))
    predictions.check_covers(split.tested)
    created = datetime.now(UTC).isoformat(timespec="milliseconds")
    run = replace(run, scores=evaluate(predictions).to_dict(), created=created)
    of_folds = enumerate(zip(folds, validation, strict=True)) if validation else ()
    validated = [_predictions(split, [fold.val], [part], [n]) for n, (fold, part) in of_folds]
    run = run.save(predictions, validated)
    save_tracks(split.dataset, run.folder.parent)
    return run


def _predictions(
    split: Split, ids: Sequence[Sequence[str]], probabilities: Sequence[np.ndarray], folds: Sequence[int]
) -> Predictions:
    """Predictions of the tracks `ids` of each of `folds`."""
    tracks = [split.dataset.by_id[track_id] for of_fold in ids for track_id in of_fold]
    return Predictions(
        split.dataset.classes,
        tuple(track.track_id for track in tracks),
        np.array(split.dataset.label_numbers(tracks)),
        np.concatenate(probabilities).astype(np.float64),
        tuple(track.group for track in tracks),
        np.repeat(folds, [len(of_fold) for of_fold in ids]),
    )
