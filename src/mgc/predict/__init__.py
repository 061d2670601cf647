"""Use the models of a run: predict new files, calibrated, and export them."""

from mgc.predict.calibrate import Calibration
from mgc.predict.export import export
from mgc.predict.models import FoldModel, OpenRun, RunModels, load_models
from mgc.predict.novelty import Novelty
from mgc.predict.predict import (
    FilePrediction,
    FilePredictions,
    Segment,
    find_files,
    format_predictions,
    open_run,
    predict_files,
)  # fmt: skip

__all__ = [
    "Calibration", "FilePrediction", "FilePredictions", "FoldModel", "Novelty", "OpenRun", "RunModels",
    "Segment", "export", "find_files", "format_predictions", "load_models", "open_run", "predict_files",
]  # fmt: skip
