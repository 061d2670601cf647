"""What commands share: the program and its groups, options, and how mistakes end."""

import errno
import functools
import select
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from mgc.config import Recipe
    from mgc.workspace import Workspace

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="A known name (mgc data list), hf:owner/name, a folder root/<genre>/<file>, a .zip of one, or a "
        "manifest. Default: $MGC_DATA, else demo.",
    ),
]
DataRoot = Annotated[
    str | None, typer.Option("--data-root", help="Where known sets lie. Default: $MGC_DATA_ROOT, else data/.")
]
SplitName = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="auto, given, holdout or cv5 (artists stay on one side); random (leaky: to measure the leak).",
    ),
]
SplitSeed = Annotated[int | None, typer.Option(help="Draws the split; apart from --seed.")]
Limit = Annotated[int | None, typer.Option(help="At most so many tracks, spread over the genres.")]
Seed = Annotated[int | None, typer.Option(help="Draws weights, order and crops.")]
Seeds = Annotated[
    str | None, typer.Option("--seeds", help="Several, say 0,1,2,3,4: one run each, one row for all.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="The same encoder with weights drawn from --seed.")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that lies beside an encoder's weights (mert).")
]
Keep = Annotated[
    str | None,
    typer.Option("--keep", help="clip: statistics of the whole clip; windows: of each window, apart."),
]
Config = Annotated[Path | None, typer.Option("--config", help="A recipe, see configs/.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="key=value over the recipe, say train.epochs=30.")
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        "--column", help="key=NAME for a manifest's path, label, split, artist, album, title or id."
    ),
]


def workspace_of(data_root: str | None = None) -> "Workspace":
    """The workspace of this command: from the environment, and from `--data-root` where it is given."""
    from mgc.workspace import Workspace

    return Workspace.from_environment(data_root)


AnyRecipe = TypeVar("AnyRecipe", bound="Recipe")


_NO_ROOM = "make room (mgc cache prune, mgc runs rm), then the same command again: what was finished is kept"
_NO_RIGHT = "make it writable, or name another folder, then the same command again: what was finished is kept"
_TO_DO: dict[int | None, str] = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _NO_RIGHT),
}


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, with mistakes and interrupts told in words instead of a traceback."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        from mgc.util.errors import MgcError

        try:
            command(*arguments, **options)
        except MgcError as error:
            typer.echo(f"mgc: {error}", err=True)
            raise typer.Exit(2) from None
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                raise  # `mgc ... | head` is no mistake: click ends in silence, with exit code 1
            # A full disk, a folder without rights: the user's to mend, and nothing finished is lost.
            told = MgcError(
                error.strerror or str(error), where=error.filename or "unknown", fix=_TO_DO.get(error.errno)
            )
            typer.echo(f"mgc: {told}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo(
                "mgc: stopped. What was finished is kept; the same command goes on from there.", err=True
            )
            raise typer.Exit(130) from None

    return run


def _nobody_reads() -> bool:
    """Whether what is printed goes to a pipe whose reader has left; a worker's broken pipe is no such one."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def recipe_of(
    kind: type[AnyRecipe],
    config: Path | None,
    settings: list[str] | None,
    columns: list[str] | None,
    **options: Any,
) -> AnyRecipe:
    """The recipe of a command; options called `data_x` go to `x` in its table `data`."""
    from mgc.config import DataRecipe, read_recipe
    from mgc.util.errors import MgcError

    dotted = {f"data.{key[5:]}" if key.startswith("data_") else key: value for key, value in options.items()}
    for column in columns or []:
        key, equals, name = column.partition("=")
        if not equals or f"{key}_column" not in DataRecipe.model_fields:
            raise MgcError(
                f"--column {column!r} is not key=NAME",
                fix="keys: path, label, split, artist, album, title, id",
            )
        dotted[f"data.{key}_column"] = name
    return read_recipe(kind, config, settings or [], dotted)


def with_seeds(recipe: AnyRecipe, seed: int | None, seeds: str | None) -> list[AnyRecipe]:
    """The recipe once a seed of `seeds`, numbers with commas between; once as it is without."""
    from mgc.config import read_recipe
    from mgc.util.errors import MgcError

    if seeds is None:
        return [recipe]
    words = [word.strip() for word in seeds.split(",")]
    if seed is not None or len(set(words)) < len(words) or not all(word.isdecimal() for word in words):
        raise MgcError(
            f"--seeds {seeds} is no list of different numbers, or stands beside --seed",
            fix="write, say, --seeds 0,1,2,3,4",
        )
    tree = recipe.model_dump(exclude_unset=True)
    return [read_recipe(type(recipe), options=tree | {"seed": int(word)}) for word in words]
