"""Commands for the embedding cache: list, verify, prune."""

import os
from types import ModuleType

import typer

from mgc.cli.options import Shared, app, command

cache_app = typer.Typer(help="List, verify and prune the embedding cache.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")


@command(cache_app, set(), name="ls")
def cache_ls(shared: Shared, format_: str = "table") -> None:
    """List the cached embeddings of every representation, their size, and whether they are up to date.

    Examples:
        mgc cache ls
        mgc cache ls --format json
    """
    cache, workspace = _offline_cache(), shared.workspace
    typer.echo(cache.render(cache.held(workspace), format_, workspace.cache))


@command(cache_app, {"data", "data_root", "limit", "column"}, name="verify")
def cache_verify(shared: Shared, apply: bool = False, recompute: int | None = None) -> None:
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
    cache, workspace = _offline_cache(), shared.workspace
    lines, left = cache.verify(apply, workspace.cache)
    if recompute:
        from mgc.config import InfoRecipe
        from mgc.data import load

        found, differing = cache.recomputed(
            load(shared.recipe(InfoRecipe).data, workspace).tracks, recompute, workspace
        )
        lines, left = [*lines, *found], left + differing
    typer.echo("\n".join(lines))
    if left:
        raise typer.Exit(1)


@command(cache_app, set(), name="prune")
def cache_prune(shared: Shared, apply: bool = False) -> None:
    """List cached files without use: outdated, incomplete, damaged or duplicate. --apply removes them.

    Examples:
        mgc cache prune
        mgc cache prune --apply
    """
    typer.echo("\n".join(_offline_cache().prune(apply, shared.workspace)))


def _offline_cache() -> ModuleType:
    """The module of the cache commands, in a process without access to the hub: they must not download."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from mgc.representations.cache import maintenance as cache

    return cache
