"""Data sets: listed, fetched, looked at."""

from pathlib import Path
from typing import Annotated

import typer

from mgc.cli.options import (
    Column,
    Config,
    Data,
    DataRoot,
    Device,
    Limit,
    Seed,
    Set,
    SplitName,
    SplitSeed,
    app,
    guarded,
    recipe_of,
    workspace_of,
)

data_app = typer.Typer(help="Look at the music.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command("info")
@guarded
def data_info(
    data: Data = None,
    data_root: DataRoot = None,
    split: SplitName = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """What is there: tracks, genres, artists, the split and what cannot be used."""
    from mgc.config import InfoRecipe

    recipe = recipe_of(
        InfoRecipe, config, set_, column,
        data_source=data, data_split=split, data_split_seed=split_seed, data_limit=limit,
        seed=seed, device=device,
    )  # fmt: skip
    from mgc.data import describe

    typer.echo(describe(recipe.data, workspace_of(data_root)))


@data_app.command("list")
@guarded
def data_list(data_root: DataRoot = None) -> None:
    """The data sets known by name: what is here, licence, size, and where each should lie."""
    from mgc.data import overview

    typer.echo(overview(workspace_of(data_root).data))


@data_app.command("fetch")
@guarded
def data_fetch(
    name: Annotated[str, typer.Argument(help="A known name, see mgc data list.")],
    from_: Annotated[
        Path | None, typer.Option("--from", help="An archive that was downloaded elsewhere.", dir_okay=False)
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Download a known data set, check it and unpack it; goes on where it was stopped."""
    from mgc.data import fetch

    for line in fetch(name, workspace_of(data_root).data, from_):
        typer.echo(line)


@data_app.command("check")
@guarded
def data_check(
    data: Data = None,
    data_root: DataRoot = None,
    format_: Annotated[str | None, typer.Option("--format", help="table, markdown or json.")] = None,
    split: SplitName = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """Look at every file: what is broken, doubled, cut short, or tells the genre without the music."""
    from mgc.config import CheckRecipe

    recipe = recipe_of(
        CheckRecipe, config, set_, column,
        data_source=data, data_split=split, data_split_seed=split_seed, data_limit=limit,
        format=format_, seed=seed, device=device,
    )  # fmt: skip
    from mgc.data.checking.check import check
    from mgc.data.checking.report import render, save

    workspace = workspace_of(data_root)
    found = check(recipe.data, workspace)
    save(found, workspace)
    typer.echo(render(found, recipe.format))
