"""`mgc report`."""

from pathlib import Path

import typer

from mgc.cli.options import Shared, app, command


@command(app, {"data", "data_root", "config", "set_"})
def report(
    shared: Shared,
    format_: str | None = None,
    bundle: bool | None = None,
    audio: bool | None = None,
    baseline: str | None = None,
    out: Path | None = None,
) -> None:
    """Write a page or a paper about all runs on a dataset, from their records.

    --format NAME  Format: html (a page), or markdown, latex or pdf (a paper). Default: html.
    --bundle  Also write a zip with the paper, the page, records and commands. Default: no zip.
    --audio/--no-audio  Embed excerpts of tracks in the page. Default: --audio.
    --baseline RUN  Id of the run that the others are compared with. Default: as in mgc compare.
    --out FOLDER  Output folder. Default: results/<dataset>.

    Examples:
        mgc report --data ~/music
        mgc report --data emotify --format pdf --bundle
    """
    from mgc.config import ReportRecipe

    settings = {"format": format_, "baseline": baseline, "bundle": bundle, "audio": audio}
    recipe = shared.recipe(ReportRecipe, **settings, out=str(out) if out else None)
    from mgc.report.content import gather
    from mgc.report.page import write_page

    content = gather(recipe, shared.workspace)
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
