"""Export a run as a folder that predicts on any machine: the weights of the folds, labels, a model card.

The folder contains no path of this machine and no music. `config.json` is written last: a folder that has it
is complete.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path

from mgc.predict.calibrate import Calibration
from mgc.predict.models import OpenRun, RunModels
from mgc.predict.novelty import NOVELTY
from mgc.representations import REPRESENTATIONS
from mgc.representations.encoders.checkpoints import as_folder, locate
from mgc.representations.encoders.efficientat import NAME, find_weights
from mgc.representations.encoders.known import SHORT_NAMES
from mgc.runs import command_line
from mgc.runs.record import RunRecord, load_record, load_records, without_places
from mgc.runs.tables import compare_records, render
from mgc.util import files
from mgc.util.errors import MgcError, explaining
from mgc.util.progress import say
from mgc.util.text import render_template

CONFIG, LABELS, CARD, ENCODER = "config.json", "labels.json", "README.md", "encoder"
FORMAT = 2
WRITTEN = (CONFIG, "fold*.safetensors", "head*.safetensors", NOVELTY, LABELS, CARD)  # CONFIG is removed first


def export(run: OpenRun, folder: Path, with_encoder: bool = False) -> Path:
    """Write the folder; `with_encoder` also copies the files of an encoder that is a local folder.

    Raises:
        MgcError: the folder contains anything but an export of the same run.
        OSError: a file cannot be copied or written.
    """
    models, record = run.models, run.models.record
    _refuse_other(folder, record)
    source = _encoder_files(models) if with_encoder else []
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    try:
        for number in range(len(models.folds)):
            name = f"{'fold' if record.kind == 'baseline' else 'head'}{number}.safetensors"
            _copy(record.folder / name, folder / name)
        run.novelty.save(folder / NOVELTY)
        for file in source:
            _copy(file, folder / ENCODER / file.name)
        encoder = _encoder_place(models, bool(source))
        config = {
            "mgc_export": FORMAT,
            "encoder": encoder,
            "threshold_is": "for the highest calibrated probability; a genre below it is called unknown",
            "calibration": run.calibration.model_dump(mode="json"),
            **without_places(record).to_dict(),
        }
        files.write(folder / LABELS, json.dumps(models.classes, indent=2) + "\n")
        files.write(folder / CARD, _model_card(run, encoder) + "\n")
        files.write(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    except BaseException:  # also an interrupt: the next call must not find a partial export
        _clear(folder)
        raise
    return folder


def _clear(folder: Path) -> None:
    """Remove the files of an earlier export."""
    for pattern in WRITTEN:
        for file in folder.glob(pattern):
            file.unlink()
    shutil.rmtree(folder / ENCODER, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as stream:
        files.write(target, iter(lambda: stream.read(2**20), b""))


def _model_card(run: OpenRun, encoder: str) -> str:
    """The README.md; `encoder` describes where the encoder is."""
    models, record, public = run.models, run.models.record, without_places(run.models.record)
    place = record.data_hash, record.split_hash
    others = [
        other for other in load_records(record.data, models.workspace)
        if (other.data_hash, other.split_hash) == place and other.run_id != record.run_id
    ]  # fmt: skip
    return render_template(
        "mgc.predict",
        "card.md",
        models=models,
        record=record,
        card=public.representation_card,
        known=run.known,
        encoder=encoder,
        scores=record.evaluation,
        trained="trained from scratch" if record.kind == "baseline" else "heads on a frozen encoder",
        comparison=render(compare_records([*others, record]), "markdown"),
        command=command_line(public),
    )


def read_export(folder: Path, model: str | None = None) -> tuple[RunRecord, Calibration, str | None]:
    """The record of an exported run, its calibration, and the place of its encoder, by default `model`.

    Raises:
        MgcError: not an export, damaged, of a newer mgc, or without its encoder and without `model`.
    """
    file, fix = folder / CONFIG, "make it with mgc export RUN FOLDER"
    errors = (OSError, ValueError, KeyError, TypeError)
    with explaining("not an export of mgc, or damaged", file, fix, errors):
        config = json.loads(file.read_text(encoding="utf-8"))
        if config["mgc_export"] != FORMAT:
            what = f"export format {config['mgc_export']}, but this version of mgc reads format {FORMAT}"
            raise MgcError(what, where=file, fix="export the run again: mgc export RUN FOLDER")
        record = load_record(file)
        calibration = Calibration.model_validate(config["calibration"])
        labels = json.loads((folder / LABELS).read_text(encoding="utf-8"))
        if labels != [row["label"] for row in record.scores["per_class"]]:
            raise ValueError(f"{LABELS} does not list the genres of the run in their order")
    if model is None and (folder / ENCODER).is_dir():
        model = str(folder / ENCODER)
    if model is None and config["encoder"].startswith("not included"):
        raise MgcError(
            f"the encoder {record.representation} is not part of this export",
            where=file,
            fix="give its folder: --model path/to/folder; or export the run again with --with-encoder",
        )
    return record, calibration, model


def _refuse_other(folder: Path, record: RunRecord) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        return
    with suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads((folder / CONFIG).read_text(encoding="utf-8"))["run_id"] == record.run_id:
            return
    what = f"the folder is not empty and not an export of {record.run_id}"
    raise MgcError(what, where=folder, fix="give another folder, or empty this one")


def _encoder_files(models: RunModels) -> list[Path]:
    """The files of an encoder in a local folder, which may be the cache of the hub."""
    place = models.representation.spec.name
    if place == NAME:
        weights = find_weights(models.workspace)
        return [weights] if weights else []
    if place in REPRESENTATIONS and place not in SHORT_NAMES:
        say(f"{place} has no files to copy: mgc computes it, or downloads its weights by name")
        return []
    own = None if place in SHORT_NAMES else as_folder(place)
    found = sorted((own or locate(place)[0]).iterdir())
    licence = models.record.representation_card.get("licence")
    say(f"the encoder's files are copied: its licence applies to them ({licence})")
    return [file for file in found if file.is_file() and not file.name.startswith(".")]


def _encoder_place(models: RunModels, copied: bool) -> str:
    place = models.representation.spec.name
    if copied:
        return f"in the folder {ENCODER}/"
    if place in REPRESENTATIONS:
        return f"by name: {place}"
    if as_folder(place) is None:
        return f"on the hub: {place}"
    return f"not included: give its folder, {Path(place).name}, by mgc predict --model"
