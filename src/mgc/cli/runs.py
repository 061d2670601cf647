"""Commands for finished runs: list, show, remove, reproduce."""

from typing import Annotated

import typer

from mgc.cli.options import Apply, Shared, app, command, workspace_of

runs_app = typer.Typer(help="List, show and remove runs.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, or its folder.")]


@command(runs_app, name="ls", examples=("mgc runs ls", "mgc runs ls --data demo --format json"))
def runs_ls(
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATASET", help="Only runs on this dataset. Default: all datasets."),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="NAME", help="Format: table or json. Default: table.")
    ] = "table",
) -> None:
    """List every run: score, date, commit, files, and whether the comparison tables show it."""
    from mgc.runs import format_runs, list_runs

    workspace = workspace_of()
    typer.echo(format_runs(list_runs(workspace, data), format_, workspace))


@command(runs_app, name="show", examples=("mgc runs show cnn-cv5-s0-1a2b3c4d",))
def runs_show(run: RunName) -> None:
    """Show a run: settings, data, split, scores, choices on the validation set, versions, files, command."""
    from mgc.runs import describe_run, find_run

    typer.echo(describe_run(find_run(run, workspace_of())))


@command(
    runs_app,
    name="rm",
    examples=("mgc runs rm cnn-cv5-s0-1a2b3c4d", "mgc runs rm results/demo/cnn-cv5-s0-1a2b3c4d --apply"),
)
def runs_rm(
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids of runs, or their folders.")],
    apply: Apply = False,
) -> None:
    """List the files that removing these runs deletes. --apply removes them and updates the tables."""
    from mgc.runs import remove_runs

    typer.echo("\n".join(remove_runs(run, apply, workspace_of())))


@command(
    app,
    "data_root",
    "device",
    examples=(
        "mgc rerun cnn-cv5-s0-1a2b3c4d",
        "mgc rerun cnn-cv5-s0-1a2b3c4d --data /mnt/music --tolerance 1e-6",
    ),
)
def rerun(
    shared: Shared,
    run: RunName,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="DATASET", help="Where the tracks are now. Default: where they were then."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Where the encoder is now. Default: where it was then."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0.0, metavar="X", help="Largest difference of a probability that counts as equal."),
    ] = 0.0,
) -> None:
    """Reproduce a run from its record and compare the predictions. Nothing in the results is changed.

    The exit code is 0 if they are the same, 1 if they differ.
    """
    from mgc.experiments.rerun import rerun as reproduce
    from mgc.runs import find_run

    workspace = shared.workspace
    changes = {"data.source": data, "model": model, "device": shared.device}
    result = reproduce(find_run(run, workspace), workspace, changes, tolerance)
    typer.echo("\n".join(result.lines))
    if not result.same:
        raise typer.Exit(1)
