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


@command(cache_app, set(), name="verify")
def cache_verify(shared: Shared, apply: bool = False) -> None:
    """Read every file of the cache and name damaged ones. With --apply they are set aside.

    The exit code is 1 if damaged files remain.

    Examples:
        mgc cache verify
        mgc cache verify --apply
    """
    lines, left = _offline_cache().verify(apply, shared.workspace.cache)
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
