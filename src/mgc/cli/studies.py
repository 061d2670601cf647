"""Commands that study trained systems: by amount of training data, and on altered tracks."""

from typing import Annotated

import typer

from mgc.cli.options import ALL, Seeds, Shared, TrustRemoteCode, app, command


@command(
    app,
    *ALL,
    without=("seed",),
    examples=(
        "mgc curve --data ~/music",
        "mgc curve --systems cnn,musicnn --sizes 5,10,20,all --seeds 0,1,2",
    ),
)
def curve(
    shared: Shared,
    systems: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME...", help="Networks and encoders. Default: cnn,musicnn."),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="N,N...",
            help="Training tracks per genre, for example 5,10,20,all. Default: 5, doubled up to all.",
        ),
    ] = None,
    seeds: Seeds = None,
) -> None:
    """Measure accuracy against the number of training tracks, for networks from scratch and for probes."""
    from mgc.config import CurveRecipe
    from mgc.experiments import curve as curves
    from mgc.util.errors import MgcError

    recipe = shared.recipe(CurveRecipe, systems=_words(systems), sizes=_numbers(sizes), seeds=_numbers(seeds))
    if recipe.runs and systems:
        raise MgcError(
            "--systems cannot be combined with a config that lists runs",
            where=shared.config,
            fix="remove one of the two",
        )
    typer.echo(curves.format_curve(curves.curve(recipe, shared.workspace, shared.config)))


@command(
    app,
    *ALL,
    without=("split", "split_seed", "limit", "seed"),
    examples=("mgc robust --data ~/music", "mgc robust RUN --only noise,mp3=16 --limit 100"),
)
def robust(
    shared: Shared,
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...", help="Ids of runs, or their folders. Default: the best baseline and probe."
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME...",
            help="Only these effects (noise, gain, mp3, lowpass, highpass, crop) or single alterations "
            "(noise=15). "
            "Default: all.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Use at most N test tracks, balanced over genres. Default: all test tracks."
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="Format: table, markdown or csv. Default: table."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Evaluate trained runs on altered test tracks: noisy, quiet, compressed, filtered or cropped."""
    from mgc.config import RobustRecipe
    from mgc.experiments import robust as robustness

    recipe = shared.recipe(
        RobustRecipe,
        runs=runs or None,
        only=_words(only),
        limit=limit,
        format=format_,
        trust_remote_code=trust_remote_code or None,
    )
    results = robustness.robust(recipe, shared.workspace)
    typer.echo(robustness.format_results(results, recipe.format))


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",")]


def _numbers(text: str | None) -> list[int | str] | None:
    return None if text is None else [int(word) if word.isdecimal() else word for word in _words(text) or []]
