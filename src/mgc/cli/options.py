"""What all commands share: the program, the common options, and how errors are printed.

The help of a command is its docstring: a summary, one entry for each option (`--flag METAVAR  text`) or
argument (`ARGUMENT  text`), and examples. `COMMON` has the entries of options that several commands take.
"""

import errno
import functools
import inspect
import re
import select
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

import typer

if TYPE_CHECKING:
    from mgc.config import Recipe
    from mgc.workspace import Workspace

AnyRecipe = TypeVar("AnyRecipe", bound="Recipe")
Command = TypeVar("Command", bound=Callable[..., None])

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

COMMON = """
--data DATASET  Dataset: a known name (see mgc data list), hf:owner/name, a folder root/<genre>/<file>, a .zip of
    such a folder, or a manifest. Default: $MGC_DATA, or else demo.
--data-root FOLDER  Folder of the known datasets. Default: $MGC_DATA_ROOT, or else data/.
--split NAME  Split: auto (given if the dataset has one, else cv5 below 2,000 tracks, else holdout), given, holdout,
    cv5, or random. All but random keep the tracks of an artist together; random measures the leak. Default: auto.
--split-seed N  Seed for drawing the split, independent of --seed. Default: 0.
--limit N  Use at most N tracks, balanced over genres. Default: all tracks.
--seed N  Seed for weights, order of tracks and random crops. Default: 0.
--seeds N,N...  Several seeds, for example 0,1,2: one run each, averaged in tables. Default: the one of --seed.
--device NAME  Device: auto, cpu, cuda or mps. Default: auto.
--config FILE  TOML file with settings; see configs/. Options override it. Default: built-in settings.
--set KEY=VALUE  Override one setting, for example train.epochs=30. Can be repeated. Default: none.
--column KEY=NAME  Column of a manifest or hub dataset; KEY is path, label, split, artist, album, title or id. Can be
    repeated. Default: the usual column names.
--model NAME  Encoder or feature: a name (see mgc encoders), a local folder, or a hub id. Default: musicnn.
--random-weights  Initialise the weights of the encoder randomly, from --seed. Default: pretrained weights.
--trust-remote-code  Run the Python code in an encoder's repository; MERT needs it. Default: refuse it.
--keep NAME  What is pooled: clip (one embedding per clip) or windows (one per window). Default: clip.
--precision NAME  Precision of the encoder: float32, or bfloat16 on devices that support it, which is a representation
    of its own. Default: float32.
--apply  Make the changes. Default: only print what would change.
--format NAME  Format: table or json. Default: table.
RUN  Id of a run, or its folder.
"""  # noqa: E501


@dataclass(frozen=True)
class Shared:
    """The options that most commands share; None where one was not given."""

    data: str | None = None
    data_root: str | None = None
    split: str | None = None
    split_seed: int | None = None
    limit: int | None = None
    seed: int | None = None
    device: str | None = None
    config: Path | None = None
    set_: list[str] | None = None
    column: list[str] | None = None

    @property
    def workspace(self) -> "Workspace":
        """The workspace of this command: from the environment, and from `--data-root` where it is given."""
        from mgc.workspace import Workspace

        return Workspace.from_environment(self.data_root)

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
                f"--seeds {seeds}: expected distinct integers such as 0,1,2; cannot be combined with --seed"
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


ALL = frozenset(field.name for field in fields(Shared))


def command(
    group: typer.Typer, shared: AbstractSet[str] = frozenset({"data_root"}), *, name: str | None = None
) -> Callable[[Command], Command]:
    """Add a function to `group` as a command that takes an instance of `Shared` as its first argument.

    `shared` names the common options of the command. Help is made from the docstring, see the head of this
    module. Errors that a user can fix are printed without a traceback.
    """

    def decorate(function: Command) -> Command:
        summary, entries, epilog = _parse_help(inspect.cleandoc(function.__doc__ or ""))

        @functools.wraps(function)
        def run(**values: Any) -> None:
            function(Shared(**{name: values.pop(name) for name in shared}), **values)

        own = [*inspect.signature(function).parameters.values()][1:]
        common = [p for p in inspect.signature(Shared).parameters.values() if p.name in shared]
        parameters = [_documented(parameter, entries) for parameter in (*own, *common)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        group.command(name, help=summary, epilog=epilog)(guarded(run))
        return function

    return decorate


@functools.cache
def _parse_help(text: str) -> tuple[str, dict[str, tuple[str, str | None, str]], str]:
    """The summary of a docstring, its entries by parameter name (flag, metavar, text), and its examples."""
    text, _, examples = text.partition("\nExamples:\n")
    pattern = r"^(--[\w/-]+|\[?[A-Z]+\]?(?:\.\.\.)?)(?: (\S+))?  (\S.*(?:\n    .+)*)"
    entries = {
        re.sub(r"/.*|\W", "", flag.strip("-").replace("-", "_")).lower(): (
            flag,
            metavar or None,
            re.sub(r"\s+", " ", words),
        )
        for flag, metavar, words in re.findall(pattern, text, re.MULTILINE)
    }
    summary = re.split(pattern, text, maxsplit=1, flags=re.MULTILINE)[0].strip()
    return summary, entries, "\n\n".join(["Examples:", *(line.strip() for line in examples.splitlines())])


def _documented(parameter: inspect.Parameter, entries: dict[str, Any]) -> inspect.Parameter:
    """A parameter as an option or argument of typer, with the help of its entry."""
    name = parameter.name.rstrip("_")
    flag, metavar, words = entries.get(name) or _parse_help(COMMON)[1][name]
    annotation: Any = parameter.annotation
    if get_origin(annotation) is Annotated:
        annotation, info = get_args(annotation)
    elif flag.startswith("--"):
        info = typer.Option()
    else:
        info = typer.Argument()
    info.help, info.show_default = words, False
    info.metavar = metavar if flag.startswith("--") else flag.strip("[].")
    info.param_decls = (flag,) if flag.startswith("--") else None
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[annotation, info])


_NO_SPACE = "free some space (mgc cache prune, mgc runs rm) and repeat the command; finished work is saved"
_NO_PERMISSION = "make it writable or use another folder, and repeat the command; finished work is saved"
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
            typer.echo("mgc: stopped. Finished work is saved; repeat the command to resume.", err=True)
            raise typer.Exit(130) from None

    return run


def _output_is_closed() -> bool:
    """Whether stdout or stderr is a pipe that nobody reads; a worker's broken pipe is another matter."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
