"""The command line: it parses, calls one function and prints. Heavy modules are imported by commands.

Each group of commands is a module. Importing it adds the commands to `app`, in the order of `mgc --help`.
"""

import os
import signal
import warnings
from typing import Annotated, Any, NoReturn

import typer

from mgc.cli.options import app

from mgc.cli import learn, data, runs  # isort: skip

__all__ = ["app", "data", "learn", "main", "runs"]


def _version(requested: bool) -> None:
    if requested:
        import mgc

        typer.echo(mgc.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Compare pretrained audio encoders with networks trained from scratch, on your music and labels.

    Start with: mgc data info --data FOLDER, mgc baseline, mgc probe --model musicnn, mgc compare.
    """


def main() -> None:
    """Run the command line. An error that the user can fix ends in a message and exit code 2."""
    # Waiting OpenMP threads sleep instead of spinning. Spinning made embedding five times slower when other
    # work used the same cores, and gained nothing otherwise. torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The published filter banks of AST and Whisper have such filters, and the user cannot change them.
    warnings.filterwarnings("ignore", message="At least one mel filter has all zero values")
    signal.signal(signal.SIGTERM, _interrupt)
    app()


def _interrupt(signum: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt
