"""Commands for encoders: compute embeddings, list encoders, check one."""

import typer

from mgc.cli.options import ALL, Shared, app, command


@command(app, ALL - {"split", "split_seed"})
def embed(
    shared: Shared,
    model: str | None = None,
    keep: str | None = None,
    precision: str | None = None,
    random_weights: bool | None = None,
    trust_remote_code: bool | None = None,
) -> None:
    """Compute the embeddings of every track with a frozen encoder. Tracks that are cached are skipped.

    Examples:
        mgc embed --model musicnn --data ~/music
        mgc embed --model facebook/wav2vec2-base --limit 100
    """
    from mgc.config import EmbedRecipe

    settings = {"random_weights": random_weights, "trust_remote_code": trust_remote_code}
    recipe = shared.recipe(EmbedRecipe, model=model, keep=keep, precision=precision, **settings)
    from mgc.representations.cache import embed as embedding

    done = embedding.embed(recipe, shared.workspace)
    if not done.first:
        return
    card = done.representation
    typer.echo(f"{card.name}: {card.source}")
    typer.echo(f"  licence: {card.licence}; trained on: {card.trained_on}")
    cached = done.tracks - done.computed
    what = f"{done.computed} computed, {cached} cached" if done.computed else "all cached, up to date"
    typer.echo(f"  {done.tracks} tracks: {what}; {done.seconds:.0f} s of computation in total")
    typer.echo(f"  {done.folder}")


@command(app, set())
def encoders(shared: Shared, format_: str = "table") -> None:
    """List the known encoders: sample rate, window, size, licence, and whether the weights are available.

    Examples:
        mgc encoders
        mgc encoders --format json
    """
    from mgc.representations.overview import encoders as known_encoders
    from mgc.representations.overview import render

    typer.echo(render(known_encoders(shared.workspace), format_))


@command(app, ALL)
def doctor(
    shared: Shared,
    model: str | None = None,
    random_weights: bool | None = None,
    trust_remote_code: bool | None = None,
) -> None:
    """Check an encoder: sample rate, weights, plausible output, better than random weights.

    The exit code is 1 if any check is red.

    Examples:
        mgc doctor --model musicnn --data ~/music
        mgc doctor --model path/to/encoder --limit 100
    """
    from mgc.config import DoctorRecipe
    from mgc.experiments.doctor import check_encoder
    from mgc.util.errors import printable

    settings = {"random_weights": random_weights, "trust_remote_code": trust_remote_code}
    recipe = shared.recipe(DoctorRecipe, model=model, **settings)
    colours = {"green": typer.colors.GREEN, "amber": typer.colors.YELLOW, "red": typer.colors.RED}
    any_red = False
    for check in check_encoder(recipe, shared.workspace):
        typer.secho(printable(str(check)), fg=colours[check.verdict])
        any_red |= check.verdict == "red"
    if any_red:
        raise typer.Exit(1)
