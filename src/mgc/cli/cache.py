"""Commands for the embedding cache: list, verify, prune."""

import os
from types import ModuleType
from typing import Annotated

import typer

from mgc.cli.options import Apply, app, command, workspace_of

cache_app = typer.Typer(help="List, verify and prune the embedding cache.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")


@command(cache_app, name="ls", examples=("mgc cache ls", "mgc cache ls --format json"))
def cache_ls(
    format_: Annotated[
        str, typer.Option("--format", metavar="NAME", help="Format: table or json. Default: table.")
    ] = "table",
) -> None:
    """List the cached embeddings of every representation, their size, and whether they are up to date."""
    cache, workspace = _offline_cache(), workspace_of()
    typer.echo(cache.render(cache.held(workspace), format_, workspace.cache))


@command(cache_app, name="verify", examples=("mgc cache verify", "mgc cache verify --apply"))
def cache_verify(apply: Apply = False) -> None:
    """Read every file of the cache and name damaged ones. With --apply they are set aside.

    The exit code is 1 if damaged files remain.
    """
    lines, left = _offline_cache().verify(apply, workspace_of().cache)
    typer.echo("\n".join(lines))
    if left:
        raise typer.Exit(1)


@command(cache_app, name="prune", examples=("mgc cache prune", "mgc cache prune --apply"))
def cache_prune(apply: Apply = False) -> None:
    """List cached files without use: outdated, incomplete, damaged or duplicate. --apply removes them."""
    typer.echo("\n".join(_offline_cache().prune(apply, workspace_of())))


def _offline_cache() -> ModuleType:
    """The module of the cache commands, in a process without access to the hub: they must not download."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from mgc.representations.cache import maintenance as cache

    return cache
