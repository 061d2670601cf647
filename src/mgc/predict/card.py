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
    record, scores = models.record, models.record.evaluation
    public = without_places(record)
    card = public.representation_card
    unit = "artists" if scores.interval_unit == "group" else "tracks"
    trained = "trained from scratch" if record.kind == "baseline" else "heads on a frozen encoder"
    per_class = markdown_table(
        ["genre", "precision", "recall", "F1", "tracks"],
        [
            [r.label, f"{r.precision:.2f}", f"{r.recall:.2f}", f"{r.f1:.2f}", r.support]
            for r in scores.per_class
        ],
    )
    leaky = "**The split leaks on purpose: these scores do not hold for artists outside the training set.** "
    interval = f"[{scores.accuracy_low:.3f}, {scores.accuracy_high:.3f}]"
    interval_f1 = f"[{scores.macro_f1_low:.3f}, {scores.macro_f1_high:.3f}]"
    versions = ", ".join(f"{name} {number}" for name, number in record.versions.items())
    data, genres = escape_markdown(record.data), escape_markdown(", ".join(models.classes))
    notes = "".join(f"- {escape_markdown(note)}\n" for note in record.notes)
    return f"""---
{_front_matter(record)}
---

# {escape_markdown(record.title)}: genres of {data}

{len(models.folds)} models, one for each fold of the split, {trained}, with {record.parameters:,} trained
parameters each. Their calibrated probabilities are averaged. Genres: {genres}.

## Use

    pip install mgc
    mgc predict path/to/this/folder my-music/ --format csv

Encoder or feature: {record.representation} ({card["source"]}), {encoder}.

Threshold: {calibration.summary()}.

## Evaluation

{leaky if record.leaky else ""}{scores.n_tracks} tracks, split {record.split}: {record.split_authority}.
Each track was predicted once, by the model whose test set it is in. The average of all models was not
evaluated on them, because each track is in the training set of another model.

Accuracy {scores.accuracy:.3f} {interval}, macro-F1 {scores.macro_f1:.3f} {interval_f1}
(95 %, over {scores.n_groups} {unit}).

{per_class}

Compared with the other runs on the same tracks and split:

{_comparison(record, models.workspace)}

## Intended use and limitations

Sorting one's own music by these genres, and study. Music of any other genre gets the nearest of these genres,
or "unknown". The probabilities are calibrated on tracks of {data}; they are less accurate for other
recordings, other years and other definitions of a genre. Genres are conventions and not properties of sound:
do not rate artists by them.

## Data and licences

- Music: {data}, {record.training_tracks:.0f} training tracks per fold, {len(record.excluded)} excluded;
  licence: {record.licence or "unknown"}.
- Encoder or feature: licence {card["licence"]}; trained on: {card["trained_on"]}.
{notes}
## Training

    {command_line(public)}

Run {record.run_id} of {record.created[:10]}, seed {record.seed}, on {record.device}, commit {record.commit},
{versions}. Tracks {record.data_hash}, split {record.split_hash},
representation {card["key"]}."""


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
