"""The store: what it holds, whether it is whole, what can go."""

import os
from types import ModuleType
from typing import Annotated

import typer

from mgc.cli.options import app, guarded, workspace_of

cache_app = typer.Typer(help="Look at what is kept, and tidy it.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")

Apply = Annotated[bool, typer.Option("--apply", help="Do it; without, it is only shown.")]


@cache_app.command("ls")
@guarded
def cache_ls(
    format_: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """Every representation in the store: how much there is, and whether today's code would use it."""
    cache, workspace = _offline_cache(), workspace_of()
    typer.echo(cache.render(cache.held(workspace), format_, workspace.cache))


@cache_app.command("verify")
@guarded
def cache_verify(apply: Apply = False) -> None:
    """Read every byte of the store. Damaged shards are named; --apply sets them aside."""
    lines, left = _offline_cache().verify(apply, workspace_of().cache)
    typer.echo("\n".join(lines))
    if left:
        raise typer.Exit(1)


@cache_app.command("prune")
@guarded
def cache_prune(apply: Apply = False) -> None:
    """Show what can go: stale vectors, files half written, damaged or doubled. --apply removes it."""
    typer.echo("\n".join(_offline_cache().prune(apply, workspace_of())))


def _offline_cache() -> ModuleType:
    """The cache commands, in a process that asks no hub: listing the cache must not download anything."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from mgc.representations.cache import maintenance as cache

    return cache
