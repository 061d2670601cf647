"""A run put to use: genres of a person's own files, and a folder that predicts elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from mgc.cli.options import Device, TrustRemoteCode, app, guarded, workspace_of

Run = Annotated[str, typer.Argument(help="A run's id, its folder, or a folder that mgc export made.")]
Model = Annotated[
    str | None, typer.Option(help="Where the run's encoder lies now, if not where it lay then.")
]


@app.command()
@guarded
def predict(
    run: Run,
    files: Annotated[list[Path], typer.Argument(help="Audio files, and folders of them at any depth.")],
    format_: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    over_time: Annotated[
        bool, typer.Option("--over-time", help="The genre of each stretch of 10 s or more.")
    ] = False,
    model: Model = None,
    trust_remote_code: TrustRemoteCode = False,
    device: Device = None,
) -> None:
    """Tell the genres of audio files by the models of a run. Exit code 2 if no file could be used."""
    from mgc.config import PredictRecipe, read_recipe

    options = {"format": format_, "over_time": over_time, "model": model, "device": device}
    recipe = read_recipe(PredictRecipe, options=options | {"trust_remote_code": trust_remote_code})
    from mgc.data import Excluded, by_reason
    from mgc.predict import find_files, open_run, predict_files, render
    from mgc.util.progress import say

    found = find_files(files)
    ready = open_run(
        run,
        workspace_of(),
        model=recipe.model,
        trust_remote_code=recipe.trust_remote_code,
        device=recipe.device,
    )
    answers = predict_files(ready, found, recipe.over_time)
    if answers.told or recipe.format != "table":
        typer.echo(render(answers, recipe.format))
    if answers.told:
        say(ready.calibration.told())
    failed = [Excluded(answer.file, Path(answer.file), "", answer.error) for answer in answers.failed]
    for line in by_reason(failed):
        say(f"no answer: {line}")
    if not answers.told:
        raise typer.Exit(2)


@app.command()
@guarded
def export(
    run: Run,
    folder: Annotated[Path, typer.Argument(help="New, empty, or an export of the same run.")],
    with_encoder: Annotated[
        bool, typer.Option("--with-encoder", help="Copy the encoder's files too, where it has a folder.")
    ] = False,
    model: Model = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Make a folder with which mgc predict works elsewhere, without the data or results; and a model card."""
    from mgc.predict import open_run
    from mgc.predict.export import export as write

    ready = open_run(run, workspace_of(), model=model, trust_remote_code=trust_remote_code)
    write(ready.models, ready.calibration, folder, with_encoder)
    typer.echo(f"{folder}: {len(ready.models.folds)} models; use: mgc predict {folder} FILES")
    typer.echo(f"  read {folder / 'README.md'} before you share it: it names the licences")
