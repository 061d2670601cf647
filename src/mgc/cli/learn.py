"""Commands that run systems, evaluate them and compare them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgc.cli.options import (
    ALL,
    Keep,
    RandomWeights,
    Seeds,
    Shared,
    TrustRemoteCode,
    app,
    command,
)

if TYPE_CHECKING:
    from mgc.runs.record import RunRecord


@command(
    app,
    *ALL,
    examples=(
        "mgc baseline --data ~/music --split cv5",
        "mgc baseline --network cnn_gru --seeds 0,1,2 --set train.epochs=30",
    ),
)
def baseline(
    shared: Shared,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Network: cnn, efficient_cnn, cnn_gru, unet_encoder ...; configs/baseline/ has an "
            "example of "
            "each. Default: cnn.",
        ),
    ] = None,
    seeds: Seeds = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Repeat a run that exists. Default: keep it.")
    ] = False,
) -> None:
    """Train a network from scratch on log-mel spectrograms and evaluate it."""
    from mgc.config import BaselineRecipe
    from mgc.experiments import systems

    for recipe in shared.recipes(BaselineRecipe, seeds, network=network):
        _print_scores(systems.baseline(recipe, shared.workspace, overwrite))


@command(
    app,
    *ALL,
    examples=(
        "mgc probe --data ~/music --model musicnn",
        "mgc probe --model ast --head svm --layers sweep --split cv5",
    ),
)
def probe(
    shared: Shared,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Encoder or feature, as in mgc embed. Default: every encoder with cached embeddings of "
            "all tracks.",
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Head: logistic, knn, svm, mlp, random_forest ...; configs/probe/ has an example of each. "
            "Default: logistic.",
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Layer of the encoder: a layer's name, last, sweep (the best on the validation set) or "
            "weighted "
            "(a learned sum of all layers). Default: last.",
        ),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Pooling over time: mean, std, max, mean+std, mean+max or mean+std+max. Default: that "
            "of the "
            "encoder.",
        ),
    ] = None,
    keep: Keep = None,
    random_weights: RandomWeights = False,
    trust_remote_code: TrustRemoteCode = False,
    seeds: Seeds = None,
) -> None:
    """Fit a small head on the embeddings of a frozen encoder and evaluate it.

    Embeddings that are not cached are computed first.
    """
    from mgc.config import ProbeRecipe
    from mgc.experiments import systems

    recipes = shared.recipes(
        ProbeRecipe,
        seeds,
        model=model,
        head=head,
        layers=layers,
        pool=pool,
        keep=keep,
        random_weights=random_weights or None,
        trust_remote_code=trust_remote_code or None,
    )
    for recipe in recipes:
        for record in systems.probe(recipe, shared.workspace):
            _print_scores(record)


@command(
    app,
    *ALL,
    without=("config",),
    examples=("mgc study configs/study/emotify.toml", "mgc study my-study.toml --data ~/music --seed 1"),
)
def study(
    shared: Shared,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="TOML file with a list of configs; see configs/study/.")
    ],
) -> None:
    """Run many systems on one dataset and print the table. Runs that exist are not repeated."""
    from mgc.config import StudyRecipe
    from mgc.experiments.study import study as run_study
    from mgc.runs.tables import compare_records, render

    recipe = replace(shared, config=file).recipe(StudyRecipe)
    typer.echo(render(compare_records(run_study(recipe, file, shared.workspace)), "table"))


@command(
    app,
    "data",
    "data_root",
    "config",
    "set_",
    "column",
    examples=("mgc compare --data ~/music", "mgc compare --data emotify --best 4 --format markdown"),
)
def compare(
    shared: Shared,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Format: table, markdown, latex, csv or json. Default: table.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Id of the run that the others are compared with. Default: the newest cnn, or else the "
            "newest network from scratch.",
        ),
    ] = None,
    best: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Show the N best of each kind: floors, networks from scratch, probes, leaky runs. "
            "Default: all.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Only runs with this --limit. Default: all runs.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Only runs with this --seed. Default: all runs.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only runs on this kind of device: cpu, cuda, mps. Default: all."),
    ] = None,
) -> None:
    """Compare all runs on a dataset with the baseline, with intervals and paired tests."""
    from mgc.config import CompareRecipe
    from mgc.runs.record import select_records
    from mgc.runs.tables import compare_records, render

    recipe = shared.recipe(
        CompareRecipe,
        **{"data.limit": limit},
        format=format_,
        baseline=baseline,
        best=best,
        seed=seed,
        device=device,
    )
    sections = compare_records(select_records(recipe, shared.workspace), recipe.baseline, recipe.best)
    typer.echo(render(sections, recipe.format))


@command(
    app,
    *ALL,
    examples=(
        "mgc tune --config configs/tune/quick.toml --data ~/music",
        "mgc tune --config my-search.toml --network cnn_gru --workers 2",
    ),
)
def tune(
    shared: Shared,
    network: Annotated[
        str | None, typer.Option(metavar="NAME", help="Network whose settings are searched. Default: cnn.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of trials that run at the same time. Default: 1."),
    ] = None,
) -> None:
    """Search the settings of a network from scratch on the validation set. The test set is never used."""
    from mgc.config import TuneRecipe
    from mgc.experiments import tune as search

    recipe = shared.recipe(TuneRecipe, **{"base.network": network}, workers=workers)
    typer.echo(search.render(search.tune(recipe, shared.workspace, shared.config)))


def _print_scores(record: "RunRecord") -> None:
    from mgc.util.errors import printable

    scores = record.evaluation
    typer.echo(f"{record.title} on {record.data}, split {record.split}, {scores.n_tracks} tracks")
    for line in [*scores.lines(), str(record.folder)]:
        typer.echo(printable(f"  {line}"))
