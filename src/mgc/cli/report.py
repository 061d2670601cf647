"""`mgc report`."""

from pathlib import Path
from typing import Annotated

import typer

from mgc.cli.options import Config, Data, DataRoot, Set, app, guarded, recipe_of, workspace_of


@app.command()
@guarded
def report(
    data: Data = None,
    data_root: DataRoot = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="html (a page, the default), or markdown, latex or pdf (a paper)."),
    ] = None,
    bundle: Annotated[
        bool,
        typer.Option("--bundle", help="Also write a zip with the paper, the page, records and commands."),
    ] = False,
    audio: Annotated[
        bool | None,
        typer.Option("--audio/--no-audio", help="Embed excerpts of tracks in the page. Default: --audio."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Run id of the system to compare with. Default: the newest network.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: the results of the dataset.")
    ] = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Write a page or a paper about all runs on a dataset.

    Examples: `mgc report --data path/to/music` and `mgc report --data path/to/music --format pdf --bundle`.
    """
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
    folder.mkdir(parents=True, exist_ok=True)  # fails here if it cannot be created, before any work is done
    if recipe.format == "html":
        typer.echo(write_page(content, folder))
    else:
        from mgc.report.paper import write_papers

        typer.echo(write_papers(content, [recipe.format], folder)[0])
    if recipe.bundle:
        from mgc.report.bundle import write_bundle

        typer.echo(write_bundle(content, folder))
