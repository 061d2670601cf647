"""Commands for datasets: list, download, describe, check."""

from pathlib import Path
from typing import Annotated

import typer

from mgc.cli.options import ALL, Shared, app, command

data_app = typer.Typer(help="List, download, describe and check datasets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@command(data_app, *ALL, name="info", examples=("mgc data info --data ~/music", "mgc data info --split cv5"))
def data_info(shared: Shared) -> None:
    """Describe a dataset: tracks, genres, artists, the split, and the files that cannot be used."""
    from mgc.config import InfoRecipe
    from mgc.data import describe

    recipe = shared.recipe(InfoRecipe)
    typer.echo(describe(recipe.data, shared.workspace))


@command(data_app, "data_root", name="list", examples=("mgc data list",))
def data_list(shared: Shared) -> None:
    """List the datasets known by name: availability, licence, size, and the folder each is expected in."""
    from mgc.data import overview

    typer.echo(overview(shared.workspace.data))


@command(
    data_app,
    "data_root",
    name="fetch",
    examples=("mgc data fetch gtzan", "mgc data fetch fma_small --from ~/Downloads/fma_small.zip"),
)
def data_fetch(
    shared: Shared,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a dataset; see mgc data list.")],
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Archive that was downloaded elsewhere. Default: download it.",
            dir_okay=False,
        ),
    ] = None,
) -> None:
    """Download a known dataset, verify it and unpack it. An interrupted download is resumed."""
    from mgc.data import fetch

    for line in fetch(name, shared.workspace.data, from_):
        typer.echo(line)


@command(
    data_app,
    *ALL,
    name="check",
    examples=("mgc data check --data ~/music", "mgc data check --data gtzan --format markdown"),
)
def data_check(
    shared: Shared,
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="Format: table, markdown or json. Default: table."),
    ] = None,
) -> None:
    """Check every file for problems.

    It finds files that are corrupt, duplicated, truncated, or revealing the genre by something other than
    the music.
    """
    from mgc.config import CheckRecipe
    from mgc.data.checking.check import check
    from mgc.data.checking.report import render, save

    recipe = shared.recipe(CheckRecipe, format=format_)
    workspace = shared.workspace
    found = check(recipe.data, workspace)
    save(found, workspace)
    typer.echo(render(found, recipe.format))
