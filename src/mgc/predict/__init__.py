"""What a run has learned, used on other music: its models, their calibration, predictions, an export."""

from mgc.predict.answers import FORMATS, Answer, Answers, Stretch, render
from mgc.predict.calibrate import Calibration
from mgc.predict.export import export
from mgc.predict.models import FoldModel, RunModels, load_models
from mgc.predict.predict import Ready, find_files, open_run, predict_files

__all__ = [
    "FORMATS", "Answer", "Answers", "Calibration", "FoldModel", "Ready", "RunModels", "Stretch", "export",
    "find_files", "load_models", "open_run", "predict_files", "render",
]  # fmt: skip
