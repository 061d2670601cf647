"""What all commands share: the program, the common options, and how errors are printed."""

import errno
import functools
import inspect
import select
from collections.abc import Callable
from dataclasses import dataclass, fields
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

AnyRecipe = TypeVar("AnyRecipe", bound="Recipe")
Command = TypeVar("Command", bound=Callable[..., None])

# Options of several commands, but not of most of them.
Seeds = Annotated[
    str | None,
    typer.Option(
        "--seeds",
        metavar="N,N...",
        help="Several seeds, for example 0,1,2,3,4: one run each, averaged in tables. Default: --seed alone.",
    ),
]
RandomWeights = Annotated[
    bool,
    typer.Option(
        "--random-weights",
        help="Use the encoder with randomly initialised weights, drawn from --seed. Default: pretrained "
        "weights.",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run the Python code that an encoder's repository contains; MERT needs it. Default: refuse it.",
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        "--keep",
        metavar="clip|windows",
        help="What is pooled: clip (one embedding per clip) or windows (one per window). Default: clip.",
    ),
]
Apply = Annotated[
    bool, typer.Option("--apply", help="Make the changes. Default: only print what would change.")
]


@dataclass(frozen=True)
class Shared:
    """The options that most commands share; None where one was not given."""

    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATASET",
            help="Dataset: a known name (see mgc data list), hf:owner/name, a folder "
            "root/<genre>/<file>, a .zip "
            "of such a folder, or a manifest. Default: $MGC_DATA, or else demo.",
        ),
    ] = None
    data_root: Annotated[
        str | None,
        typer.Option(
            "--data-root",
            metavar="FOLDER",
            help="Folder of the known datasets. Default: $MGC_DATA_ROOT, or else data/.",
        ),
    ] = None
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="NAME",
            help="Split: auto (given if the dataset has one, else cv5 below 2,000 tracks, else "
            "holdout), given, holdout, cv5, or random. "
            "All but "
            "random keep the tracks of an artist together; random measures the leak. Default: auto.",
        ),
    ] = None
    split_seed: Annotated[
        int | None,
        typer.Option(
            "--split-seed", metavar="N", help="Seed for drawing the split, independent of --seed. Default: 0."
        ),
    ] = None
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", help="Use at most N tracks, balanced over genres. Default: all tracks."
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="N", help="Seed for weights, order of tracks and random crops. Default: 0."
        ),
    ] = None
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="NAME", help="Device: auto, cpu, cuda or mps. Default: auto."),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="TOML file with settings; see configs/. Options override it. Default: built-in settings.",
        ),
    ] = None
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override one setting, for example train.epochs=30. Can be repeated. Default: none.",
        ),
    ] = None
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="KEY=NAME",
            help="Column of a manifest or hub dataset. KEY is path, label, split, artist, album, title "
            "or id. "
            "Can be repeated. Default: the usual column names.",
        ),
    ] = None

    @property
    def workspace(self) -> "Workspace":
        """The workspace of this command: from the environment, and from `--data-root` where it is given."""
        return workspace_of(self.data_root)

    def recipe(self, kind: type[AnyRecipe], **settings: Any) -> AnyRecipe:
        """The recipe of a command: the config file, then `--set`, then these options and `settings`.

        `settings` are values by dotted key, for example `network="cnn"` or `**{"data.limit": 3}`; those that
        are None change nothing.

        Raises:
            MgcError: an unknown key or a value that the recipe refuses.
        """
        from mgc.config import read_recipe

        options = {f"data.{key}": getattr(self, key) for key in ("split", "split_seed", "limit")}
        options |= {"data.source": self.data, "seed": self.seed, "device": self.device}
        return read_recipe(kind, self.config, self.set_ or [], options | self._columns() | settings)

    def recipes(self, kind: type[AnyRecipe], seeds: str | None, **settings: Any) -> list[AnyRecipe]:
        """As `recipe`, one for each of `seeds` (`"0,1,2"`); a single one where `seeds` is None.

        Raises:
            MgcError: as `recipe`, or `seeds` that are not distinct integers or stand beside `--seed`.
        """
        from mgc.util.errors import MgcError

        if seeds is None:
            return [self.recipe(kind, **settings)]
        words = [word.strip() for word in seeds.split(",")]
        if self.seed is not None or len({*words}) < len(words) or not all(map(str.isdecimal, words)):
            raise MgcError(
                f"--seeds {seeds}: expected distinct integers such as 0,1,2; cannot be combined with --seed",
                fix="write, for example, --seeds 0,1,2,3,4",
            )
        return [self.recipe(kind, **settings, seed=int(word)) for word in words]

    def _columns(self) -> dict[str, str]:
        from mgc.config import DataRecipe
        from mgc.util.errors import MgcError

        columns = {}
        for column in self.column or []:
            key, equals, name = column.partition("=")
            if not equals or f"{key}_column" not in DataRecipe.model_fields:
                raise MgcError(
                    f"--column {column!r} is not KEY=NAME",
                    fix="KEY is one of: path, label, split, artist, album, title, id",
                )
            columns[f"data.{key}_column"] = name
        return columns


def workspace_of(data_root: str | None = None) -> "Workspace":
    """The workspace of the environment, with `data_root` in place of its data folder where it is given."""
    from mgc.workspace import Workspace

    return Workspace.from_environment(data_root)


ALL = tuple(field.name for field in fields(Shared))


def command(
    group: typer.Typer,
    *shared: str,
    without: tuple[str, ...] = (),
    name: str | None = None,
    examples: tuple[str, ...],
) -> Callable[[Command], Command]:
    """Add a function to `group` as a command, with the options of `Shared` in `shared` but not in `without`.

    A function with shared options takes an instance of `Shared` as its first argument. Errors that a user can
    fix are printed without a traceback. `examples` are shown at the end of the command's help.
    """

    names = [name for name in shared if name not in without]
    common = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=field.type)
        for field in fields(Shared)
        if field.name in names
    ]

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def run(**values: Any) -> None:
            first = [Shared(**{name: values.pop(name) for name in names})] if names else []
            function(*first, **values)

        own = [*inspect.signature(function).parameters.values()]
        parameters = [*own[1 if names else 0 :], *common]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        group.command(name, epilog="\n\n".join(["Examples:", *examples]))(guarded(run))
        return function

    return decorate


_NO_SPACE = (
    "free some space (mgc cache prune, mgc runs rm) and repeat the command; finished work has been saved"
)
_NO_PERMISSION = (
    "make it writable or use another folder, then repeat the command; finished work has been saved"
)
_FIXES: dict[int | None, str] = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _NO_PERMISSION),
}


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """The same function; errors that a user can fix, and interrupts, end in a message and an exit code."""

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        from mgc.util.errors import MgcError

        try:
            function(*arguments, **options)
        except MgcError as error:
            typer.echo(f"mgc: {error}", err=True)
            raise typer.Exit(2) from None
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _output_is_closed():
                raise  # `mgc ... | head` is not an error: click exits silently, with exit code 1
            message = MgcError(
                error.strerror or str(error), where=error.filename or "unknown", fix=_FIXES.get(error.errno)
            )
            typer.echo(f"mgc: {message}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("mgc: stopped. Finished work has been saved; repeat the command to resume.", err=True)
            raise typer.Exit(130) from None

    return run


def _output_is_closed() -> bool:
    """Whether stdout or stderr is a pipe that nobody reads; a worker's broken pipe is another matter."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
