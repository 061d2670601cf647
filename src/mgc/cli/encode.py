"""Commands for encoders: compute embeddings, list encoders, check one."""

import typer

from mgc.cli.options import ALL, ENCODER, Options, app, command


@command(app, ALL - {"split", "split_seed"} | {"keep", "precision"} | ENCODER)
def embed(options: Options) -> None:
    """Compute the embeddings of every track with a frozen encoder. Tracks that are cached are skipped.

    Examples:
        mgc embed --model musicnn --data ~/music
        mgc embed --model facebook/wav2vec2-base --limit 100
    """
    from mgc.config import EmbedRecipe

    recipe = options.recipe(EmbedRecipe)
    from mgc.representations.cache import embed as embedding

    done = embedding.embed(recipe, options.workspace)
    if not done.first:
        return
    card = done.representation
    typer.echo(f"{card.name}: {card.source}")
    typer.echo(f"  licence: {card.licence}; trained on: {card.trained_on}")
    cached = done.tracks - done.computed
    what = f"{done.computed} computed, {cached} cached" if done.computed else "all cached, up to date"
    typer.echo(f"  {done.tracks} tracks: {what}; {done.seconds:.0f} s of computation in total")
    typer.echo(f"  {done.folder}")


@command(app)
def encoders(options: Options, format_: str = "table") -> None:
    """List the known encoders: sample rate, window, size, licence, and whether the weights are available.

    Examples:
        mgc encoders
        mgc encoders --format json
    """
    from mgc.representations.overview import encoders as known_encoders
    from mgc.representations.overview import render

    typer.echo(render(known_encoders(options.workspace), format_))


@command(app, ALL | ENCODER)
def doctor(options: Options) -> None:
    """Check an encoder: sample rate, weights, plausible output, better than random weights.

    The exit code is 1 if any check is red.

    Examples:
        mgc doctor --model musicnn --data ~/music
        mgc doctor --model path/to/encoder --limit 100
    """
    from mgc.config import DoctorRecipe
    from mgc.experiments.doctor import check_encoder
    from mgc.util.errors import printable

    recipe = options.recipe(DoctorRecipe)
    colours = {"green": typer.colors.GREEN, "amber": typer.colors.YELLOW, "red": typer.colors.RED}
    any_red = False
    for check in check_encoder(recipe, options.workspace):
        typer.secho(printable(str(check)), fg=colours[check.verdict])
        any_red |= check.verdict == "red"
    if any_red:
        raise typer.Exit(1)
