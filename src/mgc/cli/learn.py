"""Commands that run systems, evaluate them and compare them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mgc.cli.options import ALL, Shared, app, command

if TYPE_CHECKING:
    from mgc.runs.record import RunRecord


@command(app, ALL)
def baseline(
    shared: Shared, network: str | None = None, seeds: str | None = None, overwrite: bool = False
) -> None:
    """Train a network from scratch on log-mel spectrograms and evaluate it.

    --network NAME  Network: cnn, efficient_cnn, cnn_gru, unet_encoder ...; configs/baseline/ has an example
        of each. Default: cnn.
    --overwrite  Repeat a run that exists. Default: keep it.

    Examples:
        mgc baseline --data ~/music --split cv5
        mgc baseline --network cnn_gru --seeds 0,1,2 --set train.epochs=30
    """
    from mgc.config import BaselineRecipe
    from mgc.experiments import systems

    for recipe in shared.recipes(BaselineRecipe, seeds, network=network):
        _print_scores(systems.baseline(recipe, shared.workspace, overwrite))


@command(app, ALL)
def probe(
    shared: Shared,
    model: str | None = None,
    head: str | None = None,
    layers: str | None = None,
    pool: str | None = None,
    keep: str | None = None,
    precision: str | None = None,
    random_weights: bool | None = None,
    trust_remote_code: bool | None = None,
    seeds: str | None = None,
) -> None:
    """Fit a small head on the embeddings of a frozen encoder and evaluate it.

    Embeddings that are not cached are computed first.

    --model NAME  Encoder or feature, as in mgc embed. Default: every encoder with cached embeddings of all
        tracks.
    --head NAME  Head: logistic, knn, svm, mlp, random_forest ...; configs/probe/ has an example of each.
        Default: logistic.
    --layers NAME  Layer of the encoder: a layer's name, last, sweep (the best on the validation set) or
        weighted (a learned sum of all layers). Default: last.
    --pool NAME  Pooling over time: mean, std, max, mean+std, mean+max or mean+std+max. Default: that of the
        encoder.

    Examples:
        mgc probe --data ~/music --model musicnn
        mgc probe --model ast --head svm --layers sweep --split cv5
    """
    from mgc.config import ProbeRecipe
    from mgc.experiments import systems

    settings = {
        "model": model, "head": head, "layers": layers, "pool": pool, "keep": keep,
        "precision": precision, "random_weights": random_weights, "trust_remote_code": trust_remote_code,
    }  # fmt: skip
    for recipe in shared.recipes(ProbeRecipe, seeds, **settings):
        for record in systems.probe(recipe, shared.workspace):
            _print_scores(record)


@command(app, ALL - {"config"})
def study(shared: Shared, file: Path) -> None:
    """Run many systems on one dataset and print the table. Runs that exist are not repeated.

    FILE  TOML file with a list of configs; see configs/study/.

    Examples:
        mgc study configs/study/emotify.toml
        mgc study my-study.toml --data ~/music --seed 1
    """
    from mgc.config import StudyRecipe
    from mgc.experiments.study import study as run_study
    from mgc.runs.tables import compare_records, render

    recipe = replace(shared, config=file).recipe(StudyRecipe)
    typer.echo(render(compare_records(run_study(recipe, file, shared.workspace)), "table"))


@command(app, ALL - {"split", "split_seed"})
def compare(
    shared: Shared, format_: str | None = None, baseline: str | None = None, best: int | None = None
) -> None:
    """Compare all runs on a dataset with the baseline, with intervals and paired tests.

    --format NAME  Format: table, markdown, latex, csv or json. Default: table.
    --baseline RUN  Id of the run that the others are compared with. Default: the newest cnn, or else the
        newest network from scratch.
    --best N  Show the N best of each kind: floors, networks from scratch, probes, leaky runs. Default: all.
    --limit N  Only runs with this --limit. Default: all runs.
    --seed N  Only runs with this --seed. Default: all runs.
    --device NAME  Only runs on this kind of device: cpu, cuda or mps. Default: all runs.

    Examples:
        mgc compare --data ~/music
        mgc compare --data emotify --best 4 --format markdown
    """
    from mgc.config import CompareRecipe
    from mgc.runs.record import select_records
    from mgc.runs.tables import compare_records, render

    recipe = shared.recipe(CompareRecipe, format=format_, baseline=baseline, best=best)
    sections = compare_records(select_records(recipe, shared.workspace), recipe.baseline, recipe.best)
    typer.echo(render(sections, recipe.format))


@command(app, ALL)
def tune(shared: Shared, network: str | None = None, workers: int | None = None) -> None:
    """Search the settings of a network from scratch on the validation set. The test set is never used.

    --network NAME  Network whose settings are searched. Default: cnn.
    --workers N  Number of trials that run at the same time. Default: 1.

    Examples:
        mgc tune --config configs/tune/quick.toml --data ~/music
        mgc tune --config my-search.toml --network cnn_gru --workers 2
    """
    from mgc.config import TuneRecipe
    from mgc.experiments import tune as search

    recipe = shared.recipe(TuneRecipe, **{"base.network": network}, workers=workers)
    typer.echo(search.format_search(search.tune(recipe, shared.workspace, shared.config)))


def _print_scores(record: "RunRecord") -> None:
    from mgc.util.errors import printable

    scores = record.evaluation
    typer.echo(f"{record.title} on {record.data}, split {record.split}, {scores.n_tracks} tracks")
    for line in [*scores.lines(), str(record.folder)]:
        typer.echo(printable(f"  {line}"))
