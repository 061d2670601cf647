"""Studies of what is known: by how much music it is learned, and what is left of it on altered tracks."""

from typing import Annotated

import typer

from mgc.cli.options import (
    Column,
    Config,
    Data,
    DataRoot,
    Device,
    Limit,
    Seeds,
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
def curve(
    data: Data = None,
    data_root: DataRoot = None,
    systems: Annotated[
        str | None, typer.Option(help="Networks and encoders, with commas. Default: cnn,musicnn.")
    ] = None,
    sizes: Annotated[
        str | None, typer.Option(help="Training tracks a genre: 5,10,20,all. Default: doubled from 5 to all.")
    ] = None,
    seeds: Seeds = None,
    split: SplitName = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """Accuracy by the number of training tracks, a network from scratch beside probes."""
    from mgc.config import CurveRecipe
    from mgc.util.errors import MgcError

    recipe = recipe_of(
        CurveRecipe, config, set_, column,
        data_source=data, data_split=split, data_split_seed=split_seed, data_limit=limit,
        systems=_words(systems), sizes=_numbers(sizes), seeds=_numbers(seeds), device=device,
    )  # fmt: skip
    if recipe.runs and systems:
        raise MgcError("--systems beside a config that names runs", where=config, fix="leave one of them out")
    from mgc.experiments import curve as learned

    typer.echo(learned.render(learned.curve(recipe, workspace_of(data_root), config)))


@app.command()
@guarded
def robust(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Ids, or folders. Default: the best baseline and probe."),
    ] = None,
    data: Data = None,
    data_root: DataRoot = None,
    only: Annotated[
        str | None,
        typer.Option(help="Of noise, gain, mp3, lowpass, highpass, crop; or noise=15: with commas."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="At most so many test tracks, spread over genres.")
    ] = None,
    format_: Annotated[str | None, typer.Option("--format", help="table, markdown or csv.")] = None,
    trust_remote_code: TrustRemoteCode = False,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """What is left of a run's accuracy when its test tracks are noisy, quiet, compressed, filtered or cut."""
    from mgc.config import RobustRecipe

    recipe = recipe_of(
        RobustRecipe, config, set_, column,
        data_source=data, runs=runs or None, only=_words(only), limit=limit,
        format=format_, trust_remote_code=trust_remote_code or None, device=device,
    )  # fmt: skip
    from mgc.experiments import robust as altered

    typer.echo(altered.render(altered.robust(recipe, workspace_of(data_root)), recipe.format))


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",")]


def _numbers(text: str | None) -> list[int | str] | None:
    return None if text is None else [int(word) if word.isdecimal() else word for word in _words(text) or []]
