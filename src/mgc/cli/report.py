"""What was found, told to people."""

from pathlib import Path
from typing import Annotated

import typer

from mgc.cli.options import Config, Data, DataRoot, Set, app, guarded, recipe_of, workspace_of


@app.command()
@guarded
def report(
    data: Data = None,
    data_root: DataRoot = None,
    format_: Annotated[str | None, typer.Option("--format", help="html, markdown, latex or pdf.")] = None,
    bundle: Annotated[bool, typer.Option("--bundle", help="Also a zip of all of it, to hand in.")] = False,
    audio: Annotated[
        bool | None, typer.Option("--audio/--no-audio", help="Excerpts of tracks that the page can play.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="The run_id to compare with.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to. Default: results/<data>.")] = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """A page (or a paper) of all runs on a data set, made from their records."""
    from mgc.config import ReportRecipe

    recipe = recipe_of(
        ReportRecipe, config, set_, None,
        data_source=data, format=format_, baseline=baseline,
        bundle=bundle or None, audio=audio, out=str(out) if out else None,
    )  # fmt: skip
    from mgc.report.content import gather
    from mgc.report.page import write_page

    content = gather(recipe, workspace_of(data_root))
    folder = Path(recipe.out) if recipe.out else content.folder
    folder.mkdir(parents=True, exist_ok=True)  # said now, if it cannot be, and not when all is made
    if recipe.format == "html":
        typer.echo(write_page(content, folder))
    else:
        from mgc.report.paper import write_paper

        typer.echo(write_paper(content, recipe.format, folder))
    if recipe.bundle:
        from mgc.report.bundle import write_bundle

        typer.echo(write_bundle(content, folder))
