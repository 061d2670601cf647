"""Commands for datasets and for the embedding cache."""

import os
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from mgc.cli.options import ALL, Options, app, command

data_app = typer.Typer(help="List, download, describe and check datasets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
cache_app = typer.Typer(help="List, verify and prune the embedding cache.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")


@command(data_app, ALL, name="info")
def data_info(options: Options) -> None:
    """Describe a dataset: tracks, genres, artists, the split, and the files that cannot be used.

    Examples:
        mgc data info --data ~/music
        mgc data info --data ~/music/tracks.csv --column label=style
    """
    from mgc.config import InfoRecipe
    from mgc.data import describe

    typer.echo(describe(options.recipe(InfoRecipe).data, options.workspace))


@command(data_app, {"data_root"}, name="list")
def data_list(options: Options) -> None:
    """List the datasets known by name: availability, licence, size, and the folder each is expected in.

    Examples:
        mgc data list
    """
    from mgc.data import overview

    typer.echo(overview(options.workspace.data))


@command(data_app, {"data_root"}, name="fetch")
def data_fetch(
    options: Options, name: str, from_: Annotated[Path | None, typer.Option(dir_okay=False)] = None
) -> None:
    """Download a known dataset, verify it and unpack it. An interrupted download is resumed.

    NAME  Name of a dataset; see mgc data list.
    --from FILE  Archive that was downloaded elsewhere. Default: download it.

    Examples:
        mgc data fetch gtzan
        mgc data fetch fma_small --from ~/Downloads/fma_small.zip
    """
    from mgc.data import fetch

    for line in fetch(name, options.workspace.data, from_):
        typer.echo(line)


@command(data_app, ALL, name="check")
def data_check(options: Options) -> None:
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

    recipe = options.recipe(CheckRecipe)
    found = check(recipe.data, options.workspace)
    save(found, options.workspace)
    typer.echo(render(found, recipe.format))


@command(cache_app, name="ls")
def cache_ls(options: Options, format_: str = "table") -> None:
    """List the cached embeddings of every representation, their size, and whether they are up to date.

    Examples:
        mgc cache ls
        mgc cache ls --format json
    """
    cache, workspace = _offline_cache(), options.workspace
    typer.echo(cache.render(cache.held(workspace), format_, workspace.cache))


@command(cache_app, {"data", "data_root", "limit", "column"}, name="verify")
def cache_verify(options: Options, apply: bool = False, recompute: int | None = None) -> None:
    """Read every file of the cache and name damaged ones. With --apply they are set aside.

    With --recompute, compute some tracks of --data again with every cached representation, and compare.
    This shows whether the installed library versions give the cached numbers. The exit code is 1 if damaged
    files remain or embeddings differ.

    --recompute N  Number of tracks to compute again. Default: none.

    Examples:
        mgc cache verify
        mgc cache verify --apply
        mgc cache verify --recompute 5 --data ~/music
    """
    cache, workspace = _offline_cache(), options.workspace
    lines, left = cache.verify(apply, workspace.cache)
    if recompute:
        from mgc.config import InfoRecipe
        from mgc.data import load

        found, differing = cache.recomputed(
            load(options.recipe(InfoRecipe).data, workspace).tracks, recompute, workspace
        )
        lines, left = [*lines, *found], left + differing
    typer.echo("\n".join(lines))
    if left:
        raise typer.Exit(1)


@command(cache_app, name="prune")
def cache_prune(options: Options, apply: bool = False) -> None:
    """List cached files without use: outdated, incomplete, damaged or duplicate. --apply removes them.

    Examples:
        mgc cache prune
        mgc cache prune --apply
    """
    typer.echo("\n".join(_offline_cache().prune(apply, options.workspace)))


def _offline_cache() -> ModuleType:
    """The module of the cache commands, in a process without access to the hub: they must not download."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from mgc.representations.cache import maintenance as cache

    return cache
