"""What was found, told to people."""

from pathlib import Path
from typing import Annotated

import typer

from mgc.cli.options import Shared, app, command


@command(
    app,
    "data",
    "data_root",
    "config",
    "set_",
    examples=("mgc report --data ~/music", "mgc report --data emotify --format pdf --bundle"),
)
def report(
    shared: Shared,
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="Format: html, markdown, latex or pdf. Default: html."),
    ] = None,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Also write a zip file with everything. Default: no zip file.")
    ] = False,
    audio: Annotated[
        bool | None,
        typer.Option(
            "--audio/--no-audio", help="Include audio excerpts of tracks in the page. Default: --audio."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Id of the run that the others are compared with. Default: as in mgc compare.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Output folder. Default: results/<dataset>.")
    ] = None,
) -> None:
    """Write a report (a page or a paper) on all runs on a dataset, from their records."""
    from mgc.config import ReportRecipe

    recipe = shared.recipe(
        ReportRecipe,
        format=format_,
        baseline=baseline,
        bundle=bundle or None,
        audio=audio,
        out=str(out) if out else None,
    )
    from mgc.report.content import gather
    from mgc.report.page import write_page

    content = gather(recipe, shared.workspace)
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
