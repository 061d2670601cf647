"""Commands that use a finished run: predict new files, export the models."""

from pathlib import Path

import typer

from mgc.cli.options import Shared, app, command


@command(app, {"device"})
def predict(
    shared: Shared,
    run: str,
    files: list[Path],
    format_: str = "table",
    over_time: bool | None = None,
    model: str | None = None,
    trust_remote_code: bool | None = None,
) -> None:
    """Predict the genres of audio files with a trained run. The exit code is 2 if no file could be used.

    RUN  Id of a run, its folder, or a folder made by mgc export.
    FILES...  Audio files, and folders of them at any depth.
    --format NAME  Format: table, csv or json. Default: table.
    --over-time  Predict every segment of 10 s or more. Default: one prediction per file.
    --model FOLDER  Encoder of the run, if it has moved. Default: where it was during training.

    Examples:
        mgc predict musicnn-logistic-cv5-s0-1a2b3c4d new-songs/
        mgc predict exported-run/ song.mp3 --over-time --format json
    """
    from mgc.config import PredictRecipe
    from mgc.data import Excluded, by_reason
    from mgc.predict import find_files, format_predictions, open_run, predict_files
    from mgc.util.progress import say

    settings = {"format": format_, "over_time": over_time, "trust_remote_code": trust_remote_code}
    recipe = shared.recipe(PredictRecipe, model=model, **settings)
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


@command(app, set())
def export(
    shared: Shared,
    run: str,
    folder: Path,
    with_encoder: bool = False,
    model: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Export a run as a folder that mgc predict can use on any machine, with a model card.

    FOLDER  Output: a new or empty folder, or an export of the same run.
    --with-encoder  Also copy the encoder's files, if it is a local folder. Default: do not copy them.
    --model FOLDER  Encoder of the run, if it has moved. Default: where it was during training.

    Examples:
        mgc export musicnn-logistic-cv5-s0-1a2b3c4d genre-model/
        mgc export results/demo/cnn-cv5-s0-1a2b3c4d genre-model/ --with-encoder
    """
    from mgc.predict import export as export_run
    from mgc.predict import open_run

    opened = open_run(run, shared.workspace, model=model, trust_remote_code=trust_remote_code)
    export_run(opened.models, opened.calibration, folder, with_encoder)
    typer.echo(f"{folder}: {len(opened.models.folds)} models; use: mgc predict {folder} FILES")
    typer.echo(f"  read {folder / 'README.md'} before you share it: it lists the licences")
