"""Commands for datasets: list, download, describe, check."""

from pathlib import Path
from typing import Annotated

import typer

from mgc.cli.options import ALL, Shared, app, command

data_app = typer.Typer(help="List, download, describe and check datasets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@command(data_app, ALL, name="info")
def data_info(shared: Shared) -> None:
    """Describe a dataset: tracks, genres, artists, the split, and the files that cannot be used.

    Examples:
        mgc data info --data ~/music
        mgc data info --data ~/music/tracks.csv --column label=style
    """
    from mgc.config import InfoRecipe
    from mgc.data import describe

    typer.echo(describe(shared.recipe(InfoRecipe).data, shared.workspace))


@command(data_app, {"data_root"}, name="list")
def data_list(shared: Shared) -> None:
    """List the datasets known by name: availability, licence, size, and the folder each is expected in.

    Examples:
        mgc data list
    """
    from mgc.data import overview

    typer.echo(overview(shared.workspace.data))


@command(data_app, {"data_root"}, name="fetch")
def data_fetch(
    shared: Shared, name: str, from_: Annotated[Path | None, typer.Option(dir_okay=False)] = None
) -> None:
    """Download a known dataset, verify it and unpack it. An interrupted download is resumed.

    NAME  Name of a dataset; see mgc data list.
    --from FILE  Archive that was downloaded elsewhere. Default: download it.

    Examples:
        mgc data fetch gtzan
        mgc data fetch fma_small --from ~/Downloads/fma_small.zip
    """
    from mgc.data import fetch

    for line in fetch(name, shared.workspace.data, from_):
        typer.echo(line)


@command(data_app, ALL, name="check")
def data_check(shared: Shared, format_: str | None = None) -> None:
    """Check every file for problems.

    It finds files that are corrupt, duplicated, truncated, or revealing the genre by something other than
    the music.

    --format NAME  Format: table, markdown or json. Default: table.

    Examples:
        mgc data check --data ~/music
        mgc data check --data gtzan --format markdown
    """
    from mgc.config import CheckRecipe
    from mgc.data.checking.check import check
    from mgc.data.checking.report import render, save

    recipe = shared.recipe(CheckRecipe, format=format_)
    workspace = shared.workspace
    found = check(recipe.data, workspace)
    save(found, workspace)
    typer.echo(render(found, recipe.format))
