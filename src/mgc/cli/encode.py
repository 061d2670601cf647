"""Encoders: run over the music, listed, examined."""

from typing import Annotated

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
    Set,
    SplitName,
    SplitSeed,
    TrustRemoteCode,
    app,
    guarded,
    recipe_of,
    workspace_of,
)


@app.command()
@guarded
def embed(
    model: Annotated[
        str | None, typer.Option(help="A short name (musicnn, ast ...), a local folder, or a hub id.")
    ] = None,
    keep: Keep = None,
    random_weights: RandomWeights = False,
    trust_remote_code: TrustRemoteCode = False,
    data: Data = None,
    data_root: DataRoot = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """Run a frozen encoder over every clip and keep the pooled vectors. Done work is not done again."""
    from mgc.config import EmbedRecipe

    recipe = recipe_of(
        EmbedRecipe, config, set_, column,
        data_source=data, data_limit=limit, model=model, keep=keep, seed=seed,
        device=device, random_weights=random_weights or None, trust_remote_code=trust_remote_code or None,
    )  # fmt: skip
    from mgc.representations.cache import embed as embedding

    done = embedding.embed(recipe, workspace_of(data_root))
    if not done.first:
        return
    card = done.representation
    typer.echo(f"{card.name}: {card.source}")
    typer.echo(f"  licence: {card.licence}; trained on: {card.trained_on}")
    already = done.tracks - done.computed
    what = (
        f"{done.computed} computed now, {already} were there"
        if done.computed
        else "all were there: nothing to do"
    )
    typer.echo(f"  {done.tracks} tracks: {what}; {done.seconds:.0f} s of computing in all")
    typer.echo(f"  {done.folder}")


@app.command()
@guarded
def encoders(
    format_: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """The encoders known by name: rate, window, size, licence, and whether the weights are here."""
    from mgc.representations.overview import encoders as known_encoders
    from mgc.representations.overview import render

    typer.echo(render(known_encoders(workspace_of()), format_))


@app.command()
@guarded
def doctor(
    model: Annotated[str | None, typer.Option(help="As in mgc embed.")] = None,
    random_weights: RandomWeights = False,
    trust_remote_code: TrustRemoteCode = False,
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
    """Examine an encoder: right rate, whole weights, sane output, better than random. Any red: exit 1."""
    from mgc.config import DoctorRecipe
    from mgc.util.errors import printable

    recipe = recipe_of(
        DoctorRecipe, config, set_, column,
        data_source=data, data_split=split, data_split_seed=split_seed, data_limit=limit,
        model=model, seed=seed, device=device,
        random_weights=random_weights or None, trust_remote_code=trust_remote_code or None,
    )  # fmt: skip
    from mgc.experiments.doctor import examine

    colours = {"green": typer.colors.GREEN, "amber": typer.colors.YELLOW, "red": typer.colors.RED}
    sick = False
    for finding in examine(recipe, workspace_of(data_root)):
        typer.secho(printable(str(finding)), fg=colours[finding.verdict])
        sick |= finding.verdict == "red"
    if sick:
        raise typer.Exit(1)
