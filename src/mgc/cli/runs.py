"""Commands for finished runs: list, show, remove, reproduce, report, predict, export."""

from pathlib import Path
from typing import Annotated

import typer

from mgc.cli.options import Options, app, command

runs_app = typer.Typer(help="List, show and remove runs.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")


@command(runs_app, {"data"}, name="ls")
def runs_ls(options: Options, format_: str = "table") -> None:
    """List every run: score, date, commit, files, and whether the comparison tables show it.

    --data DATASET  Only runs on this dataset. Default: all datasets.

    Examples:
        mgc runs ls
        mgc runs ls --data demo --format json
    """
    from mgc.runs import format_runs, list_runs

    workspace = options.workspace
    typer.echo(format_runs(list_runs(workspace, options["data"]), format_, workspace))


@command(runs_app, name="show")
def runs_show(options: Options, run: str) -> None:
    """Show a run: settings, data, split, scores, choices on the validation set, versions, files, command.

    Examples:
        mgc runs show cnn-cv5-s0-1a2b3c4d
    """
    from mgc.runs import describe_run, find_run

    typer.echo(describe_run(find_run(run, options.workspace)))


@command(runs_app, name="rm")
def runs_rm(options: Options, run: list[str], apply: bool = False) -> None:
    """List the files that removing these runs deletes. --apply removes them and updates the tables.

    RUN...  Ids of runs, or their folders.

    Examples:
        mgc runs rm cnn-cv5-s0-1a2b3c4d
        mgc runs rm results/demo/cnn-cv5-s0-1a2b3c4d --apply
    """
    from mgc.runs import remove_runs

    typer.echo("\n".join(remove_runs(run, apply, options.workspace)))


@command(app, {"data", "data_root", "device"})
def rerun(options: Options, run: str, tolerance: Annotated[float, typer.Option(min=0.0)] = 0.0) -> None:
    """Reproduce a run from its record and compare the predictions. The results are not changed.

    The exit code is 0 if the predictions are the same, 1 if they differ.

    --data DATASET  Where the tracks are now. Default: where they were then.
    --model FOLDER  Where the encoder is now. Default: where it was then.
    --tolerance X  Largest difference of a probability that counts as equal. Default: 0.

    Examples:
        mgc rerun cnn-cv5-s0-1a2b3c4d
        mgc rerun cnn-cv5-s0-1a2b3c4d --data /mnt/music --tolerance 1e-6
    """
    from mgc.experiments.rerun import rerun as reproduce
    from mgc.runs import find_run

    workspace = options.workspace
    changes = {"data.source": options["data"], "model": options["model"], "device": options["device"]}
    same, lines = reproduce(find_run(run, workspace), workspace, changes, tolerance)
    typer.echo("\n".join(lines))
    if not same:
        raise typer.Exit(1)


@command(app, {"data", "data_root", "config", "set", "margin"})
def report(options: Options) -> None:
    """Write a page or a paper about all runs on a dataset, from their records.

    Author, title and answers come from results/<dataset>/notes.md, which the first paper creates.

    --format NAME  Format: html (a page), or markdown, latex or pdf (a paper). Default: html.
    --bundle  Also write a zip with the paper, the page, records, commands, and your own files (.py, .ipynb,
        .toml, .md ...) that are beside the runs. Default: no zip.
    --audio/--no-audio  Embed excerpts of tracks in the page. Default: --audio.
    --baseline RUN  Id of the run that the others are compared with. Default: as in mgc compare.
    --out FOLDER  Output folder. Default: results/<dataset>.
    --overwrite  Replace a paper that was edited by hand. Default: keep it.

    Examples:
        mgc report --data ~/music
        mgc report --data emotify --format pdf --bundle
    """
    from mgc.config import ReportRecipe

    recipe = options.recipe(ReportRecipe)
    from mgc.report.content import gather
    from mgc.report.page import write_page

    content = gather(recipe, options.workspace)
    folder = Path(recipe.out) if recipe.out else content.folder
    folder.mkdir(parents=True, exist_ok=True)  # fails here if it cannot be created, before any work is done
    if recipe.format == "html":
        typer.echo(write_page(content, folder))
    else:
        from mgc.report.paper import write_papers

        typer.echo(write_papers(content, [recipe.format], folder)[0])
    if recipe.bundle:
        from mgc.report.bundle import write_bundle

        typer.echo(write_bundle(content, folder))


@command(app, {"device", "trust_remote_code"})
def predict(options: Options, run: str, files: list[Path]) -> None:
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

    recipe = options.recipe(PredictRecipe)
    found = find_files(files)
    chosen = recipe.model_dump(include={"model", "trust_remote_code", "device"})
    opened = open_run(run, options.workspace, **chosen)
    predictions = predict_files(opened, found, recipe.over_time)
    if predictions.predicted or recipe.format != "table":
        typer.echo(format_predictions(predictions, recipe.format))
    if predictions.predicted:
        for sentence in predictions.known:
            say(sentence)
    failed = [Excluded(file.file, Path(file.file), "", file.error) for file in predictions.failed]
    for line in by_reason(failed):
        say(f"not predicted: {line}")
    if not predictions.predicted:
        raise typer.Exit(2)


@command(app, {"trust_remote_code"})
def export(options: Options, run: str, folder: Path, with_encoder: bool = False) -> None:
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

    trusted = bool(options["trust_remote_code"])
    opened = open_run(run, options.workspace, model=options["model"], trust_remote_code=trusted)
    export_run(opened, folder, with_encoder)
    typer.echo(f"{folder}: {len(opened.models.folds)} models; use: mgc predict {folder} FILES")
    typer.echo(f"  read {folder / 'README.md'} before you share it: it lists the licences")
