"""`mgc demo`: everything once, on music that is rendered here."""

import shlex
import shutil
import sys
from pathlib import Path

import typer

from mgc.cli.options import Shared, app, command


@command(app, {"data_root", "device"})
def demo(shared: Shared, overwrite: bool = False) -> None:
    """Render the demo dataset, run a frozen encoder and a network from scratch on it, and compare them.

    Takes a few minutes on two CPU cores. Needs no download except the weights of musicnn (29 MB from PyPI).

    --overwrite  Train the network again even if its run exists. Default: keep it.

    Examples:
        mgc demo
        mgc demo --overwrite
    """
    from mgc.config import BaselineRecipe
    from mgc.experiments.demo import demo as run_demo

    recipe = shared.recipe(BaselineRecipe)
    done = run_demo(shared.workspace, device=recipe.device, overwrite=overwrite)
    mgc, run, clip = program(), shlex.quote(str(done.best.folder)), shlex.quote(str(done.clip))
    typer.echo(f"{done.table}\n\nNext:")
    typer.echo(f"  {mgc} predict {run} {clip}")
    typer.echo(f"  {mgc} report --data demo")
    typer.echo(f"  {mgc} probe --model musicnn --data path/to/your/music    # one folder per genre")


def program() -> str:
    """How this program was called, so that the commands it prints can be typed."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m mgc"
    found = shutil.which("mgc")
    return "mgc" if found and Path(found).resolve() == called.resolve() else shlex.quote(str(called))
