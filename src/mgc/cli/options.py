"""What all commands share: the program, the common options, and how errors are printed.

The help of a command is its docstring: a summary, one entry for each option (`--flag METAVAR  text`) or
argument (`ARGUMENT  text`), and examples. An option that the function does not take is a setting of the
recipe of the command: its metavar gives its type. `options.txt` has the entries that several commands share.
"""

import errno
import functools
import inspect
import re
import select
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

import typer

if TYPE_CHECKING:
    from mgc.config import Recipe, Repeats
    from mgc.workspace import Workspace

AnyRecipe = TypeVar("AnyRecipe", bound="Recipe")
Command = TypeVar("Command", bound=Callable[..., None])

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


class Options(dict[str, Any]):
    """The options of a command that are not parameters of its function, by name; None if one is not given."""

    @property
    def workspace(self) -> "Workspace":
        """The workspace of this command: from the environment, `--data-root` and `--trust-remote-code`."""
        from mgc.workspace import Workspace

        return Workspace.from_environment(self.get("data_root"), bool(self.get("trust_remote_code")))

    def recipe(self, kind: type[AnyRecipe], **settings: Any) -> AnyRecipe:
        """The recipe of a command: the config file, then `--set`, then these options and `settings`.

        `settings` are further values by dotted key; those that are None change nothing.
        """
        from mgc.config import read_recipe

        given = {PATHS.get(name, name): value for name, value in self.items() if name not in NOT_SETTINGS}
        given |= self._columns() | settings
        return read_recipe(kind, self.get("config"), self.get("set") or [], given)

    def repeats(self) -> "Repeats":
        """`--seeds` and `--split-seeds`, or the one of `--seed` and `--split-seed`; empty if not given."""
        from mgc.config import Repeats, read_recipe
        from mgc.util.errors import MgcError

        given = {}
        for flag in ("seed", "split-seed"):
            one, several = self.get(flag.replace("-", "_")), self.get(f"{flag}s".replace("-", "_"))
            if one is not None and several is not None:
                raise MgcError(f"--{flag}s cannot be combined with --{flag}", fix="use one of the two")
            given[f"{flag}s".replace("-", "_")] = several if one is None else [one]
        return read_recipe(Repeats, options=given)

    def _columns(self) -> dict[str, str]:
        from mgc.util.errors import MgcError

        columns = {}
        for column in self.get("column") or []:
            key, equals, name = column.partition("=")
            if not equals or key not in COLUMNS:
                fix = f"KEY is one of: {', '.join(COLUMNS)}"
                raise MgcError(f"--column {column!r} is not KEY=NAME", fix=fix)
            columns[f"data.{key}_column"] = name
        return columns


ALL = {"data", "data_root", "split", "split_seed", "limit", "seed", "device", "config", "set", "column"}
COLUMNS = ("path", "label", "split", "artist", "album", "title", "id")
ENCODER = {"model", "random_weights", "trust_remote_code"}
NOT_SETTINGS = {"data_root", "trust_remote_code", "config", "set", "column", "seeds", "split_seeds"}
REPEATS = {"seeds", "split_seeds"}
PATHS = {"data": "data.source", "split": "data.split", "split_seed": "data.split_seed", "limit": "data.limit"}


def command(
    group: typer.Typer, shared: Iterable[str] = (), *, name: str | None = None
) -> Callable[[Command], Command]:
    """Add a function to `group` as a command that takes an instance of `Options` as its first argument.

    `shared` are options that `options.txt` describes. Help is made from the docstring, see the head of this
    module. Errors that a user can fix are printed without a traceback.
    """

    def decorate(function: Command) -> Command:
        summary, entries, epilog = _parse_help(inspect.cleandoc(function.__doc__ or ""))
        own = [*inspect.signature(function).parameters.values()][1:]
        others = {parameter.name.rstrip("_") for parameter in own} | {*shared}
        settings = [name for name in entries if name not in others]
        settings += [name for name in COMMON if name in shared]
        entries = COMMON | entries
        keyword = functools.partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY, default=None)

        @functools.wraps(function)
        def run(**values: Any) -> None:
            options = {name: _split(values.pop(name), entries[name][1]) for name in settings}
            function(Options(options), **values)

        parameters = [_documented(one, entries) for one in (*own, *map(keyword, settings))]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        group.command(name, help=summary, epilog=epilog)(guarded(run))
        return function

    return decorate


def _parse_help(text: str) -> tuple[str, dict[str, tuple[str, str, str]], str]:
    """The summary of a docstring, its entries by parameter name (flag, metavar, text), and its examples."""
    text, _, examples = text.partition("\nExamples:\n")
    pattern = r"^(--[\w/-]+|\[?[A-Z]+\]?(?:\.\.\.)?)(?: (\S+))?  (\S.*(?:\n    .+)*)"
    entries = {
        re.sub(r"/.*|\W", "", entry[0].strip("-").replace("-", "_")).lower(): entry
        for entry in re.findall(pattern, text, re.MULTILINE)
    }
    summary = re.split(pattern, text, maxsplit=1, flags=re.MULTILINE)[0].strip()
    return summary, entries, "\n\n".join(["Examples:", *(line.strip() for line in examples.splitlines())])


COMMON = _parse_help(Path(__file__).with_name("options.txt").read_text(encoding="utf-8"))[1]


def _documented(parameter: inspect.Parameter, entries: dict[str, Any]) -> inspect.Parameter:
    """A parameter as an option or argument of typer, with the help of its entry."""
    flag, metavar, words = entries[parameter.name.rstrip("_")]
    info: Any = typer.Option() if flag.startswith("--") else typer.Argument()
    annotation: Any = parameter.annotation
    if annotation is inspect.Parameter.empty:
        # A flag has no metavar, and KEY=NAME can be repeated.
        kind: Any = {
            "": bool,
            "N": int,
            "POINTS": float,
            "FILE": Path,
            "KEY=NAME": list[str],
            "KEY=VALUE": list[str],
        }
        annotation = kind.get(metavar, str) | None
    elif get_origin(annotation) is Annotated:
        annotation, info = get_args(annotation)
    info.help, info.show_default = " ".join(words.split()), False
    info.metavar = (metavar or None) if flag.startswith("--") else flag.strip("[].")
    info.param_decls = (flag,) if flag.startswith("--") else None
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[annotation, info])


def _split(value: Any, metavar: str) -> Any:
    """The items of a list (N,N... or NAME,NAME...), the number of N|N,N...; any other value as it is."""
    if value is None or not metavar.endswith("..."):
        return value
    words = [word.strip() for word in value.split(",")]
    numbers = metavar.endswith("N,N...")
    items = [int(word) if numbers and re.fullmatch(r"-?\d+", word) else word for word in words]
    return items[0] if metavar.startswith("N|") and len(items) == 1 else items


_NO_SPACE = "free some space (mgc cache prune, mgc runs rm) and repeat the command; finished work is saved"
_NO_PERMISSION = "make it writable or use another folder, and repeat the command; finished work is saved"
_FIXES: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _NO_SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _NO_PERMISSION),
}


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """The same function; errors that a user can fix, and interrupts, end in a message and an exit code."""

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        from mgc.util.errors import MgcError

        try:
            function(*arguments, **options)
        except (MgcError, OSError) as error:
            if isinstance(error, BrokenPipeError) and _output_is_closed():
                raise  # `mgc ... | head` is not an error: click exits silently, with exit code 1
            if isinstance(error, OSError):
                what, where = error.strerror or str(error), error.filename or "unknown"
                error = MgcError(what, where=where, fix=_FIXES.get(error.errno))
            typer.echo(f"mgc: {error}", err=True)
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
