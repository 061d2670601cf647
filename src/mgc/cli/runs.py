"""Runs after the fact: listed, shown, removed, made again."""

from typing import Annotated

import typer

from mgc.cli.options import DataRoot, Device, app, guarded, workspace_of

runs_app = typer.Typer(help="Look at the runs that are kept, and tidy them.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its folder.")]


@runs_app.command("ls")
@guarded
def runs_ls(
    data: Annotated[str | None, typer.Option("--data", help="Only runs on this data set.")] = None,
    format_: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """Every run: its score, when and by which code it was made, what is kept, whether tables show it."""
    from mgc import runs

    workspace = workspace_of()
    typer.echo(runs.render(runs.runs(workspace, data), format_, workspace))


@runs_app.command("show")
@guarded
def runs_show(run: RunName) -> None:
    """Recipe, data, split, scores, what validation chose, versions, files, and the command that makes it."""
    from mgc import runs

    typer.echo(runs.show(runs.find_run(run, workspace_of())))


@runs_app.command("rm")
@guarded
def runs_rm(
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids, or folders.")],
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without, it is only shown.")] = False,
) -> None:
    """Show what would go with these runs. --apply removes it, and writes the tables anew."""
    from mgc import runs

    typer.echo("\n".join(runs.remove(run, apply, workspace_of())))


@app.command()
@guarded
def rerun(
    run: RunName,
    data: Annotated[str | None, typer.Option("--data", help="Where the tracks lie now.")] = None,
    data_root: DataRoot = None,
    model: Annotated[str | None, typer.Option(help="Where a probe's encoder lies now.")] = None,
    device: Device = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Probabilities that differ by no more count as the same.")
    ] = 0.0,
) -> None:
    """Make a run again from its record, beside the results, and compare. Same: exit 0; different: 1."""
    from mgc import runs
    from mgc.experiments.rerun import rerun as reproduce

    workspace = workspace_of(data_root)
    changes = {"data.source": data, "model": model, "device": device}
    done = reproduce(runs.find_run(run, workspace), workspace, changes, tolerance)
    typer.echo("\n".join(done.lines))
    if not done.same:
        raise typer.Exit(1)
