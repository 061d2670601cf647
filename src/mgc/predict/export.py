"""A run as a folder that predicts elsewhere: weights of the folds, what they need to be known, a model card.

The folder names no path of this machine, and holds no music. `config.json` is written last: a folder that has
it is whole.
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
OURS = ("fold*.safetensors", "head*.safetensors", LABELS, CARD)


def export(models: RunModels, calibration: Calibration, folder: Path, with_encoder: bool = False) -> Path:
    """Write the folder; with the files of the encoder, where they lie in a folder and `with_encoder` asks.

    Raises:
        MgcError: the folder holds anything but an export of the same run, or the encoder has no files.
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
    except BaseException:  # half an export would stand in the way of the next call
        _clear(folder)
        raise
    return folder


def _clear(folder: Path) -> None:
    """Take out what an export of the same run has left."""
    (folder / CONFIG).unlink(missing_ok=True)
    for file in [file for kind in OURS for file in folder.glob(kind)]:
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
        "encoder": _where_the_encoder_is(models, bool(source)),
        "threshold_is": "of the highest calibrated probability; below it a genre is called unknown",
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
        error.filename, error.filename2 = str(target), None  # which a full disk is about
        raise


def read_export(folder: Path, model: str | None = None) -> tuple[RunRecord, Calibration, str | None]:
    """The record of an exported run, placed in `folder`; its calibration; and where its encoder lies, which
    is `model` if that is given.

    Raises:
        MgcError: no export, damaged, of a newer mgc, or without the encoder while no `model` is given.
    """
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if config["mgc_export"] != FORMAT:
            raise MgcError(f"an export of format {config['mgc_export']}", where=file, fix="update mgc")
        record = load_record(file)
        calibration = Calibration.model_validate(config["calibration"])
        labels = json.loads((folder / LABELS).read_text(encoding="utf-8"))
        if labels != [row["label"] for row in record.scores["per_class"]]:
            raise ValueError(f"{LABELS} does not name the genres that the run has learned, in their order")
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"this is no export of mgc, or damaged: {type(error).__name__}: {error}"
        raise MgcError(what, where=file, fix="make it (again) by mgc export RUN DIR") from None
    if model is None and (folder / ENCODER).is_dir():
        model = str(folder / ENCODER)
    if model is None and config["encoder"].startswith("not here"):
        raise MgcError(
            f"the encoder {record.representation} is not part of this export",
            where=file,
            fix="name its folder: --model path/to/folder; or export again, --with-encoder",
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
            f"the folder is not empty, and no export of {record.run_id}",
            where=folder,
            fix="name another folder, or empty this one",
        )


# ---- the encoder ----------------------------------------------------------------------------------------


def _encoder_files(record: RunRecord, place: str, workspace: Workspace) -> list[Path]:
    """The files of an encoder that lie in a folder here, be it one of the hub's local cache."""
    if place == NAME:
        weights = find_weights(workspace)
        return [weights] if weights else []
    if place in REPRESENTATIONS and place not in SHORT_NAMES:
        say(f"{place} has no files to copy: mgc makes it, or gets its weights by name")
        return []
    own = as_folder(place)
    folder = own if own and (place not in SHORT_NAMES) else locate(place)[0]
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    licence = record.representation_card.get("licence")
    say(f"copied with the encoder's files: its licence holds for them too ({licence})")
    return files


def _where_the_encoder_is(models: RunModels, copied: bool) -> str:
    place = models.representation.spec.name
    if copied:
        return f"in the folder {ENCODER}/"
    if place in REPRESENTATIONS:
        return f"by name: {place}"
    if as_folder(place) is None:
        return f"on the hub: {place}"
    return f"not here: give its folder, {Path(place).name}, by mgc predict --model"
