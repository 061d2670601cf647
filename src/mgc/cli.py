"""The command line: parses, calls one function, prints. Nothing heavy is imported until a command runs."""

import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from mgc.config import Recipe
    from mgc.results import RunRecord

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


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


data_app = typer.Typer(help="Look at the music.", no_args_is_help=True)
app.add_typer(data_app, name="data")
cache_app = typer.Typer(help="Look at what is kept, and tidy it.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")

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
    typer.Option("--column", help="key=NAME for a manifest's path, label, split, artist, title or id."),
]

AnyRecipe = TypeVar("AnyRecipe", bound="Recipe")


def main() -> None:
    """Run the command line; a mistake a person can mend ends in a message and exit code 2."""
    # OpenMP's threads shall sleep while they wait, not spin: beside other work on the same cores spinning
    # made embedding five times slower, alone it gains nothing. It counts only before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _interrupt)
    app()


def _interrupt(signum: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, with mistakes and interrupts told in words instead of a traceback."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        from mgc.config import MgcError

        try:
            command(*arguments, **options)
        except MgcError as error:
            typer.echo(f"mgc: {error}", err=True)
            raise typer.Exit(2) from None
        except OSError as error:
            # A full disk, a folder without rights: the user's to mend, and nothing finished is lost.
            typer.echo(f"mgc: {error.strerror or error}\n  where: {error.filename or 'unknown'}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo(
                "mgc: stopped. What was finished is kept; the same command goes on from there.", err=True
            )
            raise typer.Exit(130) from None

    return run


def _recipe(
    kind: type[AnyRecipe],
    config: Path | None,
    settings: list[str] | None,
    columns: list[str] | None,
    **options: Any,
) -> AnyRecipe:
    """The recipe of a command; options called `data_x` go to `x` in its table `data`."""
    from mgc.config import DataRecipe, MgcError, read_recipe

    dotted = {f"data.{key[5:]}" if key.startswith("data_") else key: value for key, value in options.items()}
    for column in columns or []:
        key, equals, name = column.partition("=")
        if not equals or f"{key}_column" not in DataRecipe.model_fields:
            raise MgcError(
                f"--column {column!r} is not key=NAME", fix="keys: path, label, split, artist, title, id"
            )
        dotted[f"data.{key}_column"] = name
    return read_recipe(kind, config, settings or [], dotted)


def _with_seeds(recipe: AnyRecipe, seed: int | None, seeds: str | None) -> list[AnyRecipe]:
    """The recipe once a seed of `seeds`, numbers with commas between; once as it is without."""
    from mgc.config import MgcError

    if seeds is None:
        return [recipe]
    words = [word.strip() for word in seeds.split(",")]
    if seed is not None or len(set(words)) < len(words) or not all(word.isdecimal() for word in words):
        raise MgcError(
            f"--seeds {seeds} is no list of different numbers, or stands beside --seed",
            fix="write, say, --seeds 0,1,2,3,4",
        )
    return [recipe.model_copy(update={"seed": int(word)}) for word in words]


@app.command()
@_guarded
def baseline(
    data: Data = None,
    data_root: DataRoot = None,
    network: Annotated[
        str | None, typer.Option(help="cnn, efficient_cnn, cnn_gru, unet_encoder ...: see the README.")
    ] = None,
    split: SplitName = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    seed: Seed = None,
    seeds: Seeds = None,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
    again: Annotated[bool, typer.Option("--again", help="Repeat a run that is there already.")] = False,
) -> None:
    """Train a network from scratch on log-mel spectrograms, and judge it."""
    from mgc.config import BaselineRecipe

    recipe = _recipe(
        BaselineRecipe, config, set_, column,
        data_source=data, data_root=data_root, data_split=split, data_split_seed=split_seed, data_limit=limit,
        network=network, seed=seed, device=device,
    )  # fmt: skip
    from mgc import experiment

    for each in _with_seeds(recipe, seed, seeds):
        _show(experiment.baseline(each, again))


@app.command()
@_guarded
def embed(
    model: Annotated[
        str | None, typer.Option(help="A short name (musicnn, ast ...), a local folder, or a hub id.")
    ] = None,
    keep: Keep = None,
    random_weights: RandomWeights = False,
    trust_remote_code: TrustRemoteCode = False,
    data: Data = None,
    data_root: DataRoot = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """Run a frozen encoder over every clip and keep the pooled vectors. Done work is not done again."""
    from mgc.config import EmbedRecipe

    recipe = _recipe(
        EmbedRecipe, config, set_, column,
        data_source=data, data_root=data_root, data_limit=limit, model=model, keep=keep, seed=seed,
        device=device, random_weights=random_weights or None, trust_remote_code=trust_remote_code or None,
    )  # fmt: skip
    from mgc import embedding

    done = embedding.embed(recipe)
    card = done.representation
    typer.echo(f"{card.name}: {card.source}")
    typer.echo(f"  licence: {card.licence}; trained on: {card.trained_on}")
    already = done.tracks - done.computed
    what = (
        f"{done.computed} computed now, {already} were there"
        if done.computed
        else "all were there: nothing to do"
    )
    typer.echo(f"  {done.tracks} tracks: {what}; {done.seconds:.0f} s of computing in all")
    typer.echo(f"  {done.folder}")


@app.command()
@_guarded
def probe(
    model: Annotated[
        str | None, typer.Option(help="As in mgc embed. Default: every encoder in the store.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="logistic, knn, svm, mlp, random_forest ...")] = None,
    layers: Annotated[
        str | None,
        typer.Option(help="A layer by name, last, sweep (best on validation) or weighted (learned sum)."),
    ] = None,
    pool: Annotated[str | None, typer.Option(help="mean, std, max, or several: mean+std.")] = None,
    keep: Keep = None,
    random_weights: RandomWeights = False,
    trust_remote_code: TrustRemoteCode = False,
    data: Data = None,
    data_root: DataRoot = None,
    split: SplitName = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    seed: Seed = None,
    seeds: Seeds = None,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """Fit a small classifier on pooled vectors, and judge it. Embeds first what is not in the store."""
    from mgc.config import ProbeRecipe

    recipe = _recipe(
        ProbeRecipe, config, set_, column,
        data_source=data, data_root=data_root, data_split=split, data_split_seed=split_seed, data_limit=limit,
        model=model, head=head, layers=layers, pool=pool, keep=keep, seed=seed, device=device,
        random_weights=random_weights or None, trust_remote_code=trust_remote_code or None,
    )  # fmt: skip
    from mgc import experiment

    for each in _with_seeds(recipe, seed, seeds):
        for record in experiment.probe(each):
            _show(record)


@app.command()
@_guarded
def encoders(
    format_: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """The encoders known by name: rate, window, size, licence, and whether the weights are here."""
    from mgc.representations.overview import encoders as known_encoders
    from mgc.representations.overview import render

    typer.echo(render(known_encoders(), format_))


@app.command()
@_guarded
def doctor(
    model: Annotated[str | None, typer.Option(help="As in mgc embed.")] = None,
    random_weights: RandomWeights = False,
    trust_remote_code: TrustRemoteCode = False,
    data: Data = None,
    data_root: DataRoot = None,
    split: SplitName = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """Examine an encoder: right rate, whole weights, sane output, better than random. Any red: exit 1."""
    from mgc.config import DoctorRecipe, printable

    recipe = _recipe(
        DoctorRecipe, config, set_, column,
        data_source=data, data_root=data_root, data_split=split, data_split_seed=split_seed, data_limit=limit,
        model=model, seed=seed, device=device,
        random_weights=random_weights or None, trust_remote_code=trust_remote_code or None,
    )  # fmt: skip
    from mgc.doctor import examine

    colours = {"green": typer.colors.GREEN, "amber": typer.colors.YELLOW, "red": typer.colors.RED}
    sick = False
    for finding in examine(recipe):
        typer.secho(printable(str(finding)), fg=colours[finding.verdict])
        sick |= finding.verdict == "red"
    if sick:
        raise typer.Exit(1)


@app.command()
@_guarded
def study(
    file: Annotated[Path, typer.Argument(help="A list of configs, see configs/study/.")],
    data: Data = None,
    data_root: DataRoot = None,
    split: SplitName = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """Run many systems on one data set, and show the table. What is there already is not run again."""
    from mgc.config import StudyRecipe

    recipe = _recipe(
        StudyRecipe, file, set_, column,
        data_source=data, data_root=data_root, data_split=split, data_split_seed=split_seed, data_limit=limit,
        seed=seed, device=device,
    )  # fmt: skip
    from mgc.study import study as run_study
    from mgc.tables import compare_records, render

    typer.echo(render(compare_records(run_study(recipe, file)), "table"))


@app.command()
@_guarded
def compare(
    data: Data = None,
    data_root: DataRoot = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="table, markdown, latex, csv or json.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="The run_id to compare with.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only runs with this --limit.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only runs with this --seed.")] = None,
    device: Annotated[str | None, typer.Option(help="Only runs on this kind of device.")] = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """All runs on a data set side by side, each against the baseline."""
    from mgc.config import CompareRecipe

    recipe = _recipe(
        CompareRecipe, config, set_, column,
        data_source=data, data_root=data_root, data_limit=limit,
        format=format_, baseline=baseline, seed=seed, device=device,
    )  # fmt: skip
    from mgc.results import select_records
    from mgc.tables import compare_records, render

    typer.echo(render(compare_records(select_records(recipe), recipe.baseline), recipe.format))


@app.command()
@_guarded
def tune(
    data: Data = None,
    data_root: DataRoot = None,
    network: Annotated[str | None, typer.Option(help="The network whose settings are searched.")] = None,
    workers: Annotated[int | None, typer.Option(help="Trials at once, a process each.")] = None,
    split: SplitName = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """Search the settings of a network from scratch by validation; the test side is never read."""
    from mgc.config import TuneRecipe

    recipe = _recipe(
        TuneRecipe, config, set_, column,
        data_source=data, data_root=data_root, data_split=split, data_split_seed=split_seed, data_limit=limit,
        **{"base.network": network}, workers=workers, seed=seed, device=device,
    )  # fmt: skip
    from mgc import tune as search

    typer.echo(search.render(search.tune(recipe, config)))


@data_app.command("info")
@_guarded
def data_info(
    data: Data = None,
    data_root: DataRoot = None,
    split: SplitName = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """What is there: tracks, genres, artists, the split and what cannot be used."""
    from mgc.config import InfoRecipe

    recipe = _recipe(
        InfoRecipe, config, set_, column,
        data_source=data, data_root=data_root, data_split=split, data_split_seed=split_seed, data_limit=limit,
        seed=seed, device=device,
    )  # fmt: skip
    from mgc.data import describe

    typer.echo(describe(recipe.data))


@data_app.command("list")
@_guarded
def data_list(data_root: DataRoot = None) -> None:
    """The data sets known by name: what is here, licence, size, and where each should lie."""
    from mgc.config import DataRecipe
    from mgc.data import overview, root_of

    typer.echo(overview(root_of(DataRecipe(root=data_root))))


@data_app.command("fetch")
@_guarded
def data_fetch(
    name: Annotated[str, typer.Argument(help="A known name, see mgc data list.")],
    from_: Annotated[
        Path | None, typer.Option("--from", help="An archive that was downloaded elsewhere.", dir_okay=False)
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Download a known data set, check it and unpack it; goes on where it was stopped."""
    from mgc.config import DataRecipe
    from mgc.data import fetch, root_of

    for line in fetch(name, root_of(DataRecipe(root=data_root)), from_):
        typer.echo(line)


@data_app.command("check")
@_guarded
def data_check(
    data: Data = None,
    data_root: DataRoot = None,
    format_: Annotated[str | None, typer.Option("--format", help="table, markdown or json.")] = None,
    split: SplitName = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = None,
    config: Config = None,
    set_: Set = None,
    column: Column = None,
) -> None:
    """Look at every file: what is broken, doubled, cut short, or tells the genre without the music."""
    from mgc.config import CheckRecipe

    recipe = _recipe(
        CheckRecipe, config, set_, column,
        data_source=data, data_root=data_root, data_split=split, data_split_seed=split_seed, data_limit=limit,
        format=format_, seed=seed, device=device,
    )  # fmt: skip
    from mgc.data.check import check
    from mgc.data.check_report import render, save

    found = check(recipe.data)
    save(found)
    typer.echo(render(found, recipe.format))


Apply = Annotated[bool, typer.Option("--apply", help="Do it; without, it is only shown.")]


@cache_app.command("ls")
@_guarded
def cache_ls(
    format_: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """Every representation in the store: how much there is, and whether today's code would use it."""
    cache = _offline_cache()
    typer.echo(cache.render(cache.held(), format_))


@cache_app.command("verify")
@_guarded
def cache_verify(apply: Apply = False) -> None:
    """Read every byte of the store. Damaged shards are named; --apply sets them aside."""
    lines, left = _offline_cache().verify(apply)
    typer.echo("\n".join(lines))
    if left:
        raise typer.Exit(1)


@cache_app.command("prune")
@_guarded
def cache_prune(apply: Apply = False) -> None:
    """Show what can go: stale vectors, files half written, damaged or doubled. --apply removes it."""
    typer.echo("\n".join(_offline_cache().prune(apply)))


def _offline_cache() -> ModuleType:
    """`mgc.cache` in a process that asks no hub: looking at what is here must not download what is not."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from mgc import cache

    return cache


def _show(record: "RunRecord") -> None:
    scores = record.judged
    unit = "artists" if scores.interval_unit == "group" else "tracks"
    what = " + ".join(word for word in (record.called, record.head) if word)
    typer.echo(f"{what} on {record.data}, split {record.split}, {scores.n_tracks} tracks")
    typer.echo(
        f"  accuracy {scores.accuracy:.3f} [{scores.accuracy_low:.3f}, {scores.accuracy_high:.3f}] "
        f"(95 % over {scores.n_groups} {unit}), macro-F1 {scores.macro_f1:.3f}"
    )
    width = max(len(row.label) for row in scores.per_class)
    for row in scores.per_class:
        typer.echo(
            f"  {row.label:<{width}}  precision {row.precision:.2f}  recall {row.recall:.2f}  "
            f"F1 {row.f1:.2f}  of {row.support}"
        )
    typer.echo(f"  {record.folder}")
