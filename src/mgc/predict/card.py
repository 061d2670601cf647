"""The model card of an exported run, written from its record."""

from mgc.predict.calibrate import Calibration
from mgc.predict.models import RunModels
from mgc.runs import command_line
from mgc.runs.record import RunRecord, load_records, without_places
from mgc.runs.tables import compare_records, render
from mgc.util.text import escape_markdown, markdown_table
from mgc.workspace import Workspace


def model_card(models: RunModels, calibration: Calibration, encoder: str) -> str:
    """The README.md of an export; `encoder` describes where the encoder is."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    record, public = models.record, without_places(models.record)
    per_class = [
        [r.label, f"{r.precision:.2f}", f"{r.recall:.2f}", f"{r.f1:.2f}", r.support]
        for r in record.evaluation.per_class
    ]
    loader = PackageLoader("mgc.predict")
    # The card is Markdown: foreign text is escaped by the filter, not as HTML.
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, autoescape=False)
    environment.filters["escape"] = escape_markdown
    return environment.get_template("card.md").render(
        models=models,
        record=record,
        card=public.representation_card,
        calibration=calibration,
        encoder=encoder,
        scores=record.evaluation,
        trained="trained from scratch" if record.kind == "baseline" else "heads on a frozen encoder",
        front_matter=_front_matter(record),
        per_class=markdown_table(["genre", "precision", "recall", "F1", "tracks"], per_class),
        comparison=_comparison(record, models.workspace),
        command=command_line(public),
    )


def _comparison(record: RunRecord, workspace: Workspace) -> str:
    """The table of the runs that can be compared with this one."""
    place = record.data_hash, record.split_hash
    others = [
        other for other in load_records(record.data, workspace)
        if (other.data_hash, other.split_hash) == place and other.run_id != record.run_id
    ]  # fmt: skip
    return render(compare_records([*others, record]), "markdown")


def _front_matter(record: RunRecord) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    scores = record.evaluation
    results = [
        EvalResult(
            task_type="audio-classification",
            dataset_type=record.data,
            dataset_name=f"{record.data} ({record.split})",
            metric_type=metric,
            metric_value=round(value, 4),
        )
        for metric, value in (("accuracy", scores.accuracy), ("f1", scores.macro_f1))
    ]
    music, encoder = record.licence or "unknown", record.representation_card["licence"]
    card = ModelCardData(
        license="other",  # what the weights may be used for depends on the music and the encoder
        license_name=f"music: {music}; encoder: {encoder}",
        library_name="mgc",
        pipeline_tag="audio-classification",
        tags=["audio-classification", "music", "music-genre-classification"],
        model_name=record.run_id,
        eval_results=results,
    )
    return str(card.to_yaml())
