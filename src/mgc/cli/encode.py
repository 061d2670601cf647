"""Commands for encoders: compute embeddings, list encoders, check one."""

from typing import Annotated

import typer

from mgc.cli.options import ALL, Keep, RandomWeights, Shared, TrustRemoteCode, app, command, workspace_of

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Encoder or feature: a name (see mgc encoders), a local folder, or a hub id. Default: musicnn.",
    ),
]


@command(
    app,
    *ALL,
    without=("split", "split_seed"),
    examples=(
        "mgc embed --model musicnn --data ~/music",
        "mgc embed --model facebook/wav2vec2-base --limit 100",
    ),
)
def embed(
    shared: Shared,
    model: Model = None,
    keep: Keep = None,
    random_weights: RandomWeights = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Compute the embeddings of every track with a frozen encoder. Tracks that are cached are skipped."""
    from mgc.config import EmbedRecipe

    recipe = shared.recipe(
        EmbedRecipe,
        model=model,
        keep=keep,
        random_weights=random_weights or None,
        trust_remote_code=trust_remote_code or None,
    )
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


@command(app, examples=("mgc encoders", "mgc encoders --format json"))
def encoders(
    format_: Annotated[
        str, typer.Option("--format", metavar="NAME", help="Format: table or json. Default: table.")
    ] = "table",
) -> None:
    """List the known encoders: sample rate, window, size, licence, and whether the weights are available."""
    from mgc.representations.overview import encoders as known_encoders
    from mgc.representations.overview import render

    typer.echo(render(known_encoders(workspace_of()), format_))


@command(
    app,
    *ALL,
    examples=("mgc doctor --model musicnn --data ~/music", "mgc doctor --model path/to/encoder --limit 100"),
)
def doctor(
    shared: Shared,
    model: Model = None,
    random_weights: RandomWeights = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Check an encoder: sample rate, weights, plausible output, better than random weights.

    The exit code is 1 if any check is red.
    """
    from mgc.config import DoctorRecipe
    from mgc.experiments.doctor import check_encoder
    from mgc.util.errors import printable

    recipe = shared.recipe(
        DoctorRecipe,
        model=model,
        random_weights=random_weights or None,
        trust_remote_code=trust_remote_code or None,
    )
    colours = {"green": typer.colors.GREEN, "amber": typer.colors.YELLOW, "red": typer.colors.RED}
    any_red = False
    for check in check_encoder(recipe, shared.workspace):
        typer.secho(printable(str(check)), fg=colours[check.verdict])
        any_red |= check.verdict == "red"
    if any_red:
        raise typer.Exit(1)
