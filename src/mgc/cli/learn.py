"""Systems run, judged and set side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgc.cli.options import (
    Column,
    Config,
    Data,
    DataRoot,
    Device,
    Keep,
    Limit,
    RandomWeights,
    Seed,
    Seeds,
    Set,
    SplitName,
    SplitSeed,
    TrustRemoteCode,
    app,
    guarded,
    recipe_of,
    with_seeds,
    workspace_of,
)

if TYPE_CHECKING:
    from mgc.runs.record import RunRecord


@app.command()
@guarded
def baseline(
    data: Data = None,
    data_root: DataRoot = None,
    network: Annotated[
        str | None, typer.Option(help="cnn, efficient_cnn, cnn_gru, unet_encoder ...: see the README.")
    ] = None,
    split: SplitName = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    seed: Seed = None,
    seeds: Seeds = None,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
    again: Annotated[bool, typer.Option("--again", help="Repeat a run that is there already.")] = False,
) -> None:
    """Train a network from scratch on log-mel spectrograms, and judge it."""
    from mgc.config import BaselineRecipe

    recipe = recipe_of(
        BaselineRecipe, config, set_, column,
        data_source=data, data_split=split, data_split_seed=split_seed, data_limit=limit,
        network=network, seed=seed, device=device,
    )  # fmt: skip
    from mgc.experiments import systems as experiment

    for each in with_seeds(recipe, seed, seeds):
        _show(experiment.baseline(each, workspace_of(data_root), again))


@app.command()
@guarded
def probe(
    model: Annotated[
        str | None, typer.Option(help="As in mgc embed. Default: every encoder in the store.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="logistic, knn, svm, mlp, random_forest ...")] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="A layer by name, last, sweep (best on validation) or weighted (learned sum)."),
    ] = None,
    pool: Annotated[str | None, typer.Option(help="mean, std, max, or several: mean+std.")] = None,
    keep: Keep = None,
    random_weights: RandomWeights = False,
    trust_remote_code: TrustRemoteCode = False,
    data: Data = None,
    data_root: DataRoot = None,
    split: SplitName = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    seed: Seed = None,
    seeds: Seeds = None,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """Fit a small classifier on pooled vectors, and judge it. Embeds first what is not in the store."""
    from mgc.config import ProbeRecipe

    recipe = recipe_of(
        ProbeRecipe, config, set_, column,
        data_source=data, data_split=split, data_split_seed=split_seed, data_limit=limit,
        model=model, head=head, layers=layers, pool=pool, keep=keep, seed=seed, device=device,
        random_weights=random_weights or None, trust_remote_code=trust_remote_code or None,
    )  # fmt: skip
    from mgc.experiments import systems as experiment

    for each in with_seeds(recipe, seed, seeds):
        for record in experiment.probe(each, workspace_of(data_root)):
            _show(record)


@app.command()
@guarded
def study(
    file: Annotated[Path, typer.Argument(help="A list of configs, see configs/study/.")],
    data: Data = None,
    data_root: DataRoot = None,
    split: SplitName = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """Run many systems on one data set, and show the table. What is there already is not run again."""
    from mgc.config import StudyRecipe

    recipe = recipe_of(
        StudyRecipe, file, set_, column,
        data_source=data, data_split=split, data_split_seed=split_seed, data_limit=limit,
        seed=seed, device=device,
    )  # fmt: skip
    from mgc.experiments.study import study as run_study
    from mgc.runs.tables import compare_records, render

    typer.echo(render(compare_records(run_study(recipe, file, workspace_of(data_root))), "table"))


@app.command()
@guarded
def compare(
    data: Data = None,
    data_root: DataRoot = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="table, markdown, latex, csv or json.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="The run_id to compare with.")] = None,
    best: Annotated[
        int | None, typer.Option(help="Show so many of each kind: floors, from scratch, probes, leaky ones.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only runs with this --limit.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only runs with this --seed.")] = None,
    device: Annotated[str | None, typer.Option(help="Only runs on this kind of device.")] = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """All runs on a data set side by side, each against the baseline."""
    from mgc.config import CompareRecipe

    recipe = recipe_of(
        CompareRecipe, config, set_, column,
        data_source=data, data_limit=limit,
        format=format_, baseline=baseline, best=best, seed=seed, device=device,
    )  # fmt: skip
    from mgc.runs.record import select_records
    from mgc.runs.tables import compare_records, render

    sections = compare_records(select_records(recipe, workspace_of(data_root)), recipe.baseline, recipe.best)
    typer.echo(render(sections, recipe.format))


@app.command()
@guarded
def tune(
    data: Data = None,
    data_root: DataRoot = None,
    network: Annotated[str | None, typer.Option(help="The network whose settings are searched.")] = None,
    workers: Annotated[int | None, typer.Option(help="Trials at once, a process each.")] = None,
    split: SplitName = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """Search the settings of a network from scratch by validation; the test side is never read."""
    from mgc.config import TuneRecipe

    recipe = recipe_of(
        TuneRecipe, config, set_, column,
        data_source=data, data_split=split, data_split_seed=split_seed, data_limit=limit,
        **{"base.network": network}, workers=workers, seed=seed, device=device,
    )  # fmt: skip
    from mgc.experiments import tune as search

    typer.echo(search.render(search.tune(recipe, workspace_of(data_root), config)))


def _show(record: "RunRecord") -> None:
    from mgc.util.errors import printable

    scores = record.evaluation
    what = " + ".join(word for word in (record.display_name, record.head) if word)
    typer.echo(f"{what} on {record.data}, split {record.split}, {scores.n_tracks} tracks")
    for line in [*scores.lines(), str(record.folder)]:
        typer.echo(printable(f"  {line}"))
