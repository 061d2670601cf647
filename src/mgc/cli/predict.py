"""Commands that use a finished run: predict new files, export the models."""

from pathlib import Path
from typing import Annotated

import typer

from mgc.cli.options import Shared, TrustRemoteCode, app, command, workspace_of

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Id of a run, its folder, or a folder made by mgc export.")
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER", help="Encoder of the run, if it has moved. Default: where it was during training."
    ),
]


@command(
    app,
    "device",
    examples=(
        "mgc predict musicnn-logistic-cv5-s0-1a2b3c4d new-songs/",
        "mgc predict exported-run/ song.mp3 --over-time --format json",
    ),
)
def predict(
    shared: Shared,
    run: Run,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES...", help="Audio files, and folders of them at any depth.")
    ],
    format_: Annotated[
        str, typer.Option("--format", metavar="NAME", help="Format: table, csv or json. Default: table.")
    ] = "table",
    over_time: Annotated[
        bool,
        typer.Option(
            "--over-time",
            help="Predict every segment of 10 s or more. Default: one prediction per file.",
        ),
    ] = False,
    model: Model = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Predict the genres of audio files with a trained run. The exit code is 2 if no file could be used."""
    from mgc.config import PredictRecipe
    from mgc.data import Excluded, by_reason
    from mgc.predict import find_files, format_predictions, open_run, predict_files
    from mgc.util.progress import say

    recipe = shared.recipe(
        PredictRecipe, format=format_, over_time=over_time, model=model, trust_remote_code=trust_remote_code
    )
    found = find_files(files)
    opened = open_run(
        run,
        shared.workspace,
        model=recipe.model,
        trust_remote_code=recipe.trust_remote_code,
        device=recipe.device,
    )
    predictions = predict_files(opened, found, recipe.over_time)
    if predictions.predicted or recipe.format != "table":
        typer.echo(format_predictions(predictions, recipe.format))
    if predictions.predicted:
        say(opened.calibration.summary())
    failed = [Excluded(file.file, Path(file.file), "", file.error) for file in predictions.failed]
    for line in by_reason(failed):
        say(f"not predicted: {line}")
    if not predictions.predicted:
        raise typer.Exit(2)


@command(
    app,
    examples=(
        "mgc export musicnn-logistic-cv5-s0-1a2b3c4d genre-model/",
        "mgc export results/demo/cnn-cv5-s0-1a2b3c4d genre-model/ --with-encoder",
    ),
)
def export(
    run: Run,
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Output: a new or empty folder, or an export of the same run."),
    ],
    with_encoder: Annotated[
        bool,
        typer.Option(
            "--with-encoder",
            help="Also copy the encoder's files, if it is a local folder. Default: leave them where "
            "they are.",
        ),
    ] = False,
    model: Model = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Export a run as a folder that mgc predict can use on any machine, with a model card."""
    from mgc.predict import export as export_run
    from mgc.predict import open_run

    opened = open_run(run, workspace_of(), model=model, trust_remote_code=trust_remote_code)
    export_run(opened.models, opened.calibration, folder, with_encoder)
    typer.echo(f"{folder}: {len(opened.models.folds)} models; use: mgc predict {folder} FILES")
    typer.echo(f"  read {folder / 'README.md'} before you share it: it lists the licences")
