"""The command line: parses, calls one function, prints. Nothing heavy is imported until a command runs.

A group of commands is a module here; importing it adds them to `app`, in the order in which help lists them.
"""

import os
import signal
import warnings
from typing import Annotated, Any, NoReturn

import typer

from mgc.cli.options import app

from mgc.cli import demo, learn, encode, data, cache, runs, report, predict, studies  # isort: skip

__all__ = ["app", "cache", "data", "demo", "encode", "learn", "main", "predict", "report", "runs", "studies"]


def _version(wanted: bool) -> None:
    if wanted:
        import mgc

        typer.echo(mgc.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Which pretrained ear knows your music? Frozen audio encoders against a network from scratch."""


def main() -> None:
    """Run the command line; a mistake a person can mend ends in a message and exit code 2."""
    # OpenMP's threads shall sleep while they wait, not spin: beside other work on the same cores spinning
    # made embedding five times slower, alone it gains nothing. It counts only before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The published filter banks of AST and Whisper have such filters: nothing for the user to mend.
    warnings.filterwarnings("ignore", message="At least one mel filter has all zero values")
    signal.signal(signal.SIGTERM, _interrupt)
    app()


def _interrupt(signum: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt
