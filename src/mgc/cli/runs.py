"""Commands for finished runs: list, show, remove, reproduce."""

from typing import Annotated

import typer

from mgc.cli.options import Shared, app, command

runs_app = typer.Typer(help="List, show and remove runs.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")


@command(runs_app, {"data"}, name="ls")
def runs_ls(shared: Shared, format_: str = "table") -> None:
    """List every run: score, date, commit, files, and whether the comparison tables show it.

    --data DATASET  Only runs on this dataset. Default: all datasets.

    Examples:
        mgc runs ls
        mgc runs ls --data demo --format json
    """
    from mgc.runs import format_runs, list_runs

    workspace = shared.workspace
    typer.echo(format_runs(list_runs(workspace, shared.data), format_, workspace))


@command(runs_app, set(), name="show")
def runs_show(shared: Shared, run: str) -> None:
    """Show a run: settings, data, split, scores, choices on the validation set, versions, files, command.

    Examples:
        mgc runs show cnn-cv5-s0-1a2b3c4d
    """
    from mgc.runs import describe_run, find_run

    typer.echo(describe_run(find_run(run, shared.workspace)))


@command(runs_app, set(), name="rm")
def runs_rm(shared: Shared, run: list[str], apply: bool = False) -> None:
    """List the files that removing these runs deletes. --apply removes them and updates the tables.

    RUN...  Ids of runs, or their folders.

    Examples:
        mgc runs rm cnn-cv5-s0-1a2b3c4d
        mgc runs rm results/demo/cnn-cv5-s0-1a2b3c4d --apply
    """
    from mgc.runs import remove_runs

    typer.echo("\n".join(remove_runs(run, apply, shared.workspace)))


@command(app, {"data", "data_root", "device"})
def rerun(
    shared: Shared,
    run: str,
    model: str | None = None,
    tolerance: Annotated[float, typer.Option(min=0.0)] = 0.0,
) -> None:
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

    workspace = shared.workspace
    changes = {"data.source": shared.data, "model": model, "device": shared.device}
    result = reproduce(find_run(run, workspace), workspace, changes, tolerance)
    typer.echo("\n".join(result.lines))
    if not result.same:
        raise typer.Exit(1)
