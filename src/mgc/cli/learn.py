"""Commands that run systems, evaluate and compare them, and compute and check embeddings."""

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mgc.cli.options import ALL, ENCODER, REPEATS, Options, app, command

if TYPE_CHECKING:
    from mgc.config import BaselineRecipe, ProbeRecipe
    from mgc.runs.record import RunRecord


@command(app, {"data_root", "device"})
def demo(options: Options, overwrite: bool = False) -> None:
    """Render the demo dataset, run a frozen encoder and a network from scratch on it, and compare them.

    The network is trained with three seeds. Takes several minutes on two CPU cores, and needs no download
    except the weights of musicnn (29 MB from PyPI).

    --overwrite  Train the network again even if its runs exist. Default: keep them.

    Examples:
        mgc demo
        mgc demo --overwrite
    """
    from mgc.config import BaselineRecipe
    from mgc.experiments.study import demo as run_demo

    recipe = options.recipe(BaselineRecipe)
    table, best, clip = run_demo(options.workspace, device=recipe.device, overwrite=overwrite)
    mgc = _program()
    typer.echo(f"{table}\n\nNext:")
    typer.echo(f"  {mgc} predict {shlex.quote(str(best.folder))} {shlex.quote(str(clip))}")
    typer.echo(f"  {mgc} report --data demo")
    typer.echo(f"  {mgc} probe --model musicnn --data path/to/your/music    # one folder per genre")


@command(app, ALL | REPEATS)
def baseline(options: Options, overwrite: bool = False) -> None:
    """Train a network from scratch on log-mel spectrograms and evaluate it.

    --network NAME  Network: cnn, efficient_cnn, cnn_gru, unet_encoder ...; configs/baseline/ has an example
        of each. Default: cnn.
    --overwrite  Repeat a run that exists. Default: keep it.

    Examples:
        mgc baseline --data ~/music --split cv5
        mgc baseline --network cnn_gru --seeds 3 --split-seeds 0,1,2 --set train.epochs=30
    """
    from mgc.config import BaselineRecipe

    recipe = options.recipe(BaselineRecipe)
    _run(options, recipe, recipe.name or recipe.network, overwrite)


@command(app, ALL | ENCODER | REPEATS | {"keep", "precision"})
def probe(options: Options) -> None:
    """Fit a small head on the embeddings of a frozen encoder and evaluate it.

    Embeddings that are not cached are computed first.

    --model NAME  Encoder or feature, as in mgc embed. Default: every encoder with cached embeddings of all
        tracks.
    --head NAME  Head: logistic, knn, svm, mlp, random_forest ...; configs/probe/ has an example of each.
        Default: logistic.
    --layers NAME  Layer of the encoder: a layer's name, last, sweep (the best, by --select) or
        weighted (a learned sum of all layers). Default: last.
    --select NAME  How settings of the head are chosen: cv (by inner folds of the training and validation
        set that keep artists apart; the head is fitted on both) or validation (on the validation set; the
        head is fitted on the training set). Default: cv.
    --pool NAME  Pooling over time: mean, std, max, mean+std, mean+max or mean+std+max. Default: that of the
        encoder.

    Examples:
        mgc probe --data ~/music --model musicnn
        mgc probe --model ast --head svm --layers sweep --split cv5
    """
    from mgc.config import ProbeRecipe

    recipe = options.recipe(ProbeRecipe)
    _run(options, recipe, recipe.name or " + ".join(filter(None, (recipe.model, recipe.head))))


@command(app, ALL - {"config"} | REPEATS | {"trust_remote_code"})
def study(options: Options, file: Path) -> None:
    """Run many systems on one dataset and print the table. Runs that exist are not repeated.

    FILE  TOML file with a list of configs; see configs/study/.

    Examples:
        mgc study configs/study/emotify.toml
        mgc study my-study.toml --data ~/music --seeds 3
    """
    from mgc.config import StudyRecipe
    from mgc.experiments.study import study as run_study
    from mgc.runs.tables import compare_records, render

    recipe = Options(options, config=file, seed=None).recipe(StudyRecipe)
    records = run_study(recipe, file, options.workspace, options.repeats())
    typer.echo(render(compare_records(records), "table"))


@command(app, ALL - {"split", "split_seed"} | {"margin"})
def compare(options: Options) -> None:
    """Compare all runs on a dataset with the baseline, with intervals and paired tests.

    --format NAME  Format: table, markdown, latex, csv or json. Default: table.
    --baseline RUN  Id of the run that the others are compared with. Default: the cnn with default settings,
        or else the oldest network from scratch.
    --best N  Show the N best of each kind: floors, networks from scratch, probes, leaky runs. Default: all.
    --limit N  Only runs with this --limit. Default: all runs.
    --seed N  Only runs with this --seed. Default: all runs.
    --device NAME  Only runs on this kind of device: cpu, cuda or mps. Default: all runs.

    Examples:
        mgc compare --data ~/music
        mgc compare --data emotify --best 4 --format markdown
    """
    from mgc.config import CompareRecipe
    from mgc.runs.record import select_records
    from mgc.runs.tables import compare_records, render

    recipe = options.recipe(CompareRecipe)
    records = select_records(recipe, options.workspace)
    sections = compare_records(records, recipe.baseline, recipe.best, recipe.margin)
    typer.echo(render(sections, recipe.format))


@command(app, ALL)
def tune(options: Options, network: str | None = None) -> None:
    """Search the settings of a network from scratch on the validation set. The test set is never used.

    --network NAME  Network whose settings are searched. Default: cnn.
    --workers N  Number of trials that run at the same time. Default: 1.

    Examples:
        mgc tune --config configs/tune/quick.toml --data ~/music
        mgc tune --config my-search.toml --network cnn_gru --workers 2
    """
    from mgc.config import TuneRecipe
    from mgc.experiments import tune as search

    recipe = options.recipe(TuneRecipe, **{"base.network": network})
    typer.echo(search.format_search(search.tune(recipe, options.workspace, options["config"])))


@command(app, ALL - {"seed"} | {"margin", "trust_remote_code"})
def curve(options: Options) -> None:
    """Measure accuracy against the number of training tracks, for networks from scratch and for probes.

    --systems NAME,NAME...  Networks and encoders. Default: cnn,musicnn.
    --sizes N,N...  Training tracks per genre, for example 5,10,20,all. Default: 5, doubled up to all.
    --seeds N|N,N...  Seeds for the training tracks and for the weights, averaged: a count (3 means 0,1,2) or
        a list. Default: 0,1,2.

    Examples:
        mgc curve --data ~/music
        mgc curve --systems cnn,musicnn --sizes 5,10,20,all --seeds 5
    """
    from mgc.config import CurveRecipe
    from mgc.experiments import curve as curves
    from mgc.util.errors import MgcError

    recipe, config = options.recipe(CurveRecipe, seeds=options["seeds"]), options["config"]
    if recipe.runs and options["systems"]:
        what = "--systems cannot be combined with a config that lists runs"
        raise MgcError(what, where=config, fix="remove one of the two")
    points = curves.curve(recipe, options.workspace, config)
    typer.echo(curves.format_curve(points, recipe.margin))


@command(app, ALL - {"split", "split_seed", "limit", "seed"} | {"trust_remote_code", "margin"})
def robust(options: Options, run: list[str] | None = None, limit: int | None = None) -> None:
    """Evaluate trained runs on altered test tracks: noisy, quiet, compressed, filtered or cropped.

    [RUN]...  Ids of runs, or their folders. Default: the best baseline and the best probe.
    --only NAME,NAME...  Only these effects (noise, gain, mp3, lowpass, highpass, crop) or single alterations
        (noise=15). Default: all effects.
    --limit N  Use at most N test tracks, balanced over genres. Default: all test tracks.
    --format NAME  Format: table, markdown or csv. Default: table.

    Examples:
        mgc robust --data ~/music
        mgc robust cnn-cv5-s0-1a2b3c4d --only noise,mp3=16 --limit 100 --margin 2
    """
    from mgc.config import RobustRecipe
    from mgc.experiments import robust as robustness

    recipe = options.recipe(RobustRecipe, runs=run or None, limit=limit)
    results = robustness.robust(recipe, options.workspace)
    typer.echo(robustness.format_results(results, recipe.format))


@command(app, ALL - {"split", "split_seed"} | {"keep", "precision"} | ENCODER)
def embed(options: Options) -> None:
    """Compute the embeddings of every track with a frozen encoder. Tracks that are cached are skipped.

    Examples:
        mgc embed --model musicnn --data ~/music
        mgc embed --model facebook/wav2vec2-base --limit 100
    """
    from mgc.config import EmbedRecipe

    recipe = options.recipe(EmbedRecipe)
    from mgc.representations.cache import embed as embedding

    done = embedding.embed(recipe, options.workspace)
    if not done.first:
        return
    card = done.representation
    typer.echo(f"{card.name}: {card.source}")
    typer.echo(f"  licence: {card.licence}; trained on: {card.trained_on}")
    cached = done.tracks - done.computed
    what = f"{done.computed} computed, {cached} cached" if done.computed else "all cached, up to date"
    typer.echo(f"  {done.tracks} tracks: {what}; {done.seconds:.0f} s of computation in total")
    typer.echo(f"  {done.folder}")


@command(app)
def encoders(options: Options, format_: str = "table") -> None:
    """List the known encoders: sample rate, window, size, licence, and whether the weights are available.

    Examples:
        mgc encoders
        mgc encoders --format json
    """
    from mgc.representations.overview import encoders as known_encoders
    from mgc.representations.overview import render

    typer.echo(render(known_encoders(options.workspace), format_))


@command(app, ALL | ENCODER)
def doctor(options: Options) -> None:
    """Check an encoder: sample rate, weights, plausible output, better than random weights.

    The exit code is 1 if any check is red.

    Examples:
        mgc doctor --model musicnn --data ~/music
        mgc doctor --model path/to/encoder --limit 100
    """
    from mgc.config import DoctorRecipe
    from mgc.experiments.doctor import check_encoder
    from mgc.util.errors import printable

    recipe = options.recipe(DoctorRecipe)
    colours = {"green": typer.colors.GREEN, "amber": typer.colors.YELLOW, "red": typer.colors.RED}
    any_red = False
    for check in check_encoder(recipe, options.workspace):
        typer.secho(printable(str(check)), fg=colours[check.verdict])
        any_red |= check.verdict == "red"
    if any_red:
        raise typer.Exit(1)


def _run(
    options: Options, recipe: "BaselineRecipe | ProbeRecipe", title: str, overwrite: bool = False
) -> None:
    """Run a system for all seeds and print its scores, and the command that adds missing seeds."""
    from mgc.evaluate import MIN_SEEDS
    from mgc.experiments.study import PlannedRun, run_planned
    from mgc.experiments.systems import cost, missing_seeds

    workspace = options.workspace
    for record in run_planned([PlannedRun(title, recipe, options.repeats())], workspace, overwrite):
        _print_scores(record)
    if missing := missing_seeds(record, workspace):
        words = re.sub(r" --(overwrite|seeds?[ =]\S+)", "", shlex.join(sys.argv[1:]))
        typer.echo(f"a verdict needs {MIN_SEEDS} seeds; {missing} more take about {cost(record, missing)}:")
        typer.echo(f"  {_program()} {words} --seeds {MIN_SEEDS}")


def _print_scores(record: "RunRecord") -> None:
    from mgc.util.errors import printable

    scores = record.evaluation
    typer.echo(f"{record.title} on {record.data}, split {record.split}, {scores.n_tracks} tracks")
    for line in [*scores.lines(), str(record.folder)]:
        typer.echo(printable(f"  {line}"))


def _program() -> str:
    """How this program was called, so that the commands it prints can be typed."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m mgc"
    found = shutil.which("mgc")
    return "mgc" if found and Path(found).resolve() == called.resolve() else shlex.quote(str(called))
