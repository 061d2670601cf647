"""Commands that study trained systems: by amount of training data, and on altered tracks."""

import typer

from mgc.cli.options import ALL, Shared, app, command


@command(app, ALL - {"seed"})
def curve(
    shared: Shared, systems: str | None = None, sizes: str | None = None, seeds: str | None = None
) -> None:
    """Measure accuracy against the number of training tracks, for networks from scratch and for probes.

    --systems NAME,NAME...  Networks and encoders. Default: cnn,musicnn.
    --sizes N,N...  Training tracks per genre, for example 5,10,20,all. Default: 5, doubled up to all.
    --seeds N,N...  Seeds for the training tracks and for the weights, averaged. Default: 0,1,2.

    Examples:
        mgc curve --data ~/music
        mgc curve --systems cnn,musicnn --sizes 5,10,20,all --seeds 0,1,2
    """
    from mgc.config import CurveRecipe
    from mgc.experiments import curve as curves
    from mgc.util.errors import MgcError

    settings = {"systems": _words(systems), "sizes": _numbers(sizes), "seeds": _numbers(seeds)}
    recipe = shared.recipe(CurveRecipe, **settings)
    if recipe.runs and systems:
        what = "--systems cannot be combined with a config that lists runs"
        raise MgcError(what, where=shared.config, fix="remove one of the two")
    typer.echo(curves.format_curve(curves.curve(recipe, shared.workspace, shared.config)))


@command(app, ALL - {"split", "split_seed", "limit", "seed"})
def robust(
    shared: Shared,
    run: list[str] | None = None,
    only: str | None = None,
    limit: int | None = None,
    format_: str | None = None,
    trust_remote_code: bool | None = None,
) -> None:
    """Evaluate trained runs on altered test tracks: noisy, quiet, compressed, filtered or cropped.

    [RUN]...  Ids of runs, or their folders. Default: the best baseline and the best probe.
    --only NAME,NAME...  Only these effects (noise, gain, mp3, lowpass, highpass, crop) or single alterations
        (noise=15). Default: all effects.
    --limit N  Use at most N test tracks, balanced over genres. Default: all test tracks.
    --format NAME  Format: table, markdown or csv. Default: table.

    Examples:
        mgc robust --data ~/music
        mgc robust cnn-cv5-s0-1a2b3c4d --only noise,mp3=16 --limit 100
    """
    from mgc.config import RobustRecipe
    from mgc.experiments import robust as robustness

    settings = {"only": _words(only), "limit": limit, "format": format_}
    recipe = shared.recipe(RobustRecipe, runs=run or None, **settings, trust_remote_code=trust_remote_code)
    results = robustness.robust(recipe, shared.workspace)
    typer.echo(robustness.format_results(results, recipe.format))


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",")]


def _numbers(text: str | None) -> list[int | str] | None:
    return None if text is None else [int(word) if word.isdecimal() else word for word in _words(text) or []]
