"""Export a run as a folder that predicts on any machine: the weights of the folds, labels, a model card.

The folder contains no path of this machine and no music. `config.json` is written last: a folder that has it
is complete.
"""

import json
import shutil
from pathlib import Path

from mgc.predict.calibrate import Calibration
from mgc.predict.card import model_card
from mgc.predict.models import RunModels
from mgc.representations import REPRESENTATIONS
from mgc.representations.encoders.checkpoints import as_folder, locate
from mgc.representations.encoders.efficientat import NAME, find_weights
from mgc.representations.encoders.known import SHORT_NAMES
from mgc.runs.record import RunRecord, load_record, without_places
from mgc.util import files
from mgc.util.errors import MgcError
from mgc.util.progress import say
from mgc.workspace import Workspace

CONFIG, LABELS, CARD, ENCODER = "config.json", "labels.json", "README.md", "encoder"
FORMAT = 1
WRITTEN = ("fold*.safetensors", "head*.safetensors", LABELS, CARD)


def export(models: RunModels, calibration: Calibration, folder: Path, with_encoder: bool = False) -> Path:
    """Write the folder; `with_encoder` also copies the files of an encoder that is a local folder.

    Raises:
        MgcError: the folder contains anything but an export of the same run.
        OSError: a file cannot be copied or written.
    """
    record = models.record
    _refuse_other(folder, record)
    source = (
        _encoder_files(record, models.representation.spec.name, models.workspace) if with_encoder else None
    )
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    try:
        _write(models, calibration, folder, source)
    except BaseException:  # also an interrupt: the next call must not find a partial export
        _clear(folder)
        raise
    return folder


def _clear(folder: Path) -> None:
    """Remove the files of an earlier export."""
    (folder / CONFIG).unlink(missing_ok=True)
    for file in [file for pattern in WRITTEN for file in folder.glob(pattern)]:
        file.unlink()
    shutil.rmtree(folder / ENCODER, ignore_errors=True)


def _write(models: RunModels, calibration: Calibration, folder: Path, source: list[Path] | None) -> None:
    record = models.record
    part = "fold" if record.kind == "baseline" else "head"
    for number in range(len(models.folds)):
        name = f"{part}{number}.safetensors"
        _copy(record.folder / name, folder / name)
    if source:
        (folder / ENCODER).mkdir()
        for file in source:
            _copy(file, folder / ENCODER / file.name)
    config = {
        "mgc_export": FORMAT,
        "encoder": _encoder_place(models, bool(source)),
        "threshold_is": "for the highest calibrated probability; a genre below it is called unknown",
        "calibration": calibration.model_dump(mode="json"),
        **without_places(record).to_dict(),
    }
    for name, text in (
        (LABELS, json.dumps(models.classes, indent=2)),
        (CARD, model_card(models, calibration, str(config["encoder"]))),
        (CONFIG, json.dumps(config, indent=2)),
    ):
        files.write(folder / name, text + "\n")


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        error.filename, error.filename2 = str(target), None  # on a full disk this is the file that counts
        raise


def read_export(folder: Path, model: str | None = None) -> tuple[RunRecord, Calibration, str | None]:
    """The record of an exported run, its calibration, and the place of its encoder, by default `model`.

    Raises:
        MgcError: not an export, damaged, of a newer mgc, or without its encoder and without `model`.
    """
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if config["mgc_export"] != FORMAT:
            raise MgcError(f"unknown export format {config['mgc_export']}", where=file, fix="update mgc")
        record = load_record(file)
        calibration = Calibration.model_validate(config["calibration"])
        labels = json.loads((folder / LABELS).read_text(encoding="utf-8"))
        if labels != [row["label"] for row in record.scores["per_class"]]:
            raise ValueError(f"{LABELS} does not list the genres of the run in their order")
        if len(calibration.temperatures) != len(record.chosen):
            raise ValueError(f"{len(calibration.temperatures)} temperatures for {len(record.chosen)} models")
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"not an export of mgc, or damaged: {type(error).__name__}: {error}"
        raise MgcError(what, where=file, fix="make it with mgc export RUN FOLDER") from None
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
    same = False
    if (folder / CONFIG).is_file():
        try:
            same = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["run_id"] == record.run_id
        except (OSError, ValueError, KeyError, TypeError):
            same = False
    if not same:
        raise MgcError(
            f"the folder is not empty and not an export of {record.run_id}",
            where=folder,
            fix="give another folder, or empty this one",
        )


# ---- the encoder ----------------------------------------------------------------------------------------


def _encoder_files(record: RunRecord, place: str, workspace: Workspace) -> list[Path]:
    """The files of an encoder in a local folder, which may be the cache of the hub."""
    if place == NAME:
        weights = find_weights(workspace)
        return [weights] if weights else []
    if place in REPRESENTATIONS and place not in SHORT_NAMES:
        say(f"{place} has no files to copy: mgc computes it, or downloads its weights by name")
        return []
    own = as_folder(place)
    folder = own if own and (place not in SHORT_NAMES) else locate(place)[0]
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    licence = record.representation_card.get("licence")
    say(f"the encoder's files are copied: its licence applies to them ({licence})")
    return files


def _encoder_place(models: RunModels, copied: bool) -> str:
    place = models.representation.spec.name
    if copied:
        return f"in the folder {ENCODER}/"
    if place in REPRESENTATIONS:
        return f"by name: {place}"
    if as_folder(place) is None:
        return f"on the hub: {place}"
    return f"not included: give its folder, {Path(place).name}, by mgc predict --model"
