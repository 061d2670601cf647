"""The model card of an exported run, for a person and for the hub: what its record tells, nothing by hand."""

from mgc.predict.calibrate import Calibration
from mgc.predict.models import RunModels
from mgc.runs import command_of
from mgc.runs.record import RunRecord, load_records, without_places
from mgc.runs.tables import compare_records, render
from mgc.workspace import Workspace


def model_card(models: RunModels, calibration: Calibration, encoder: str) -> str:
    """README.md of the export; `encoder` says where the encoder is."""
    record, scores = models.record, models.record.evaluation
    told = without_places(record)
    card = told.representation_card
    unit = "artists" if scores.interval_unit == "group" else "tracks"
    title = " + ".join(word for word in (record.display_name, record.head) if word)
    trained = "trained from scratch" if record.kind == "baseline" else "small heads on a frozen encoder"
    rows = "\n".join(
        f"| {_cell(row.label)} | {row.precision:.2f} | {row.recall:.2f} | {row.f1:.2f} | {row.support} |"
        for row in scores.per_class
    )
    leaky = "**The split leaks on purpose: these figures say nothing about artists not heard before.** "
    interval = f"[{scores.accuracy_low:.3f}, {scores.accuracy_high:.3f}]"
    interval_f1 = f"[{scores.macro_f1_low:.3f}, {scores.macro_f1_high:.3f}]"
    versions = ", ".join(f"{name} {number}" for name, number in record.versions.items())
    return f"""---
{_front_matter(record)}
---

# {_cell(title)}: genres of {_cell(record.data)}

{len(models.folds)} models, one a fold of the split, {trained}, {record.parameters:,} trained parameters
each; their calibrated probabilities are averaged. Genres: {_cell(", ".join(models.classes))}.

## Use

    pip install mgc
    mgc predict path/to/this/folder my-music/ --format csv

Encoder or feature: {record.representation} ({card["source"]}), {encoder}.

On validation: {calibration.told()}.

## Measured

{leaky if record.leaky else ""}{scores.n_tracks} tracks, split {record.split}: {record.split_authority}.
Each track was predicted once, by the one model that had it on its test side. The average of all models was
not measured on them: each model has learned from tracks of the other test sides.

Accuracy {scores.accuracy:.3f} {interval}, macro-F1 {scores.macro_f1:.3f} {interval_f1}
(95 %, over {scores.n_groups} {unit}).

| genre | precision | recall | F1 | tracks |
| --- | --- | --- | --- | --- |
{rows}

Beside the other runs on the same tracks and split:

{_comparison(record, models.workspace)}

## What it is for, and what not

For sorting one's own music by these genres, and for study. It knows no others: other music gets the nearest
of them, or "unknown". The probabilities are calibrated on tracks of {_cell(record.data)}; of other
recordings, other years and other ideas of a genre they are less true. Genres are habits of speech and not
facts of sound: do not judge artists by them.

## Data and licences

- Music: {_cell(record.data)}, {record.training_tracks:.0f} tracks to learn from in a fold,
  {len(record.excluded)} left out; licence: {record.licence or "not known to mgc"}.
- Encoder or feature: licence {card["licence"]}; trained on: {card["trained_on"]}.
{"".join(f"- {_cell(note)}{chr(10)}" for note in record.notes)}
## Made by

    {command_of(told)}

Run {record.run_id} of {record.created[:10]}, seed {record.seed}, on {record.device}, commit {record.commit},
{versions}. Tracks {record.data_hash}, split {record.split_hash},
representation {card["fingerprint"]}."""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "&#124;").replace("<", "&lt;")


def _comparison(record: RunRecord, workspace: Workspace) -> str:
    """The table of the runs that may be compared with this one."""
    place = record.data_hash, record.split_hash
    others = [
        other for other in load_records(record.data, workspace)
        if (other.data_hash, other.split_hash) == place and other.run_id != record.run_id
    ]  # fmt: skip
    return render(compare_records([*others, record]), "markdown")


def _front_matter(record: RunRecord) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    scores = record.evaluation
    measured = {"accuracy": scores.accuracy, "f1": scores.macro_f1}
    results = [
        EvalResult(
            task_type="audio-classification",
            dataset_type=record.data,
            dataset_name=f"{record.data} ({record.split})",
            metric_type=kind,
            metric_value=round(value, 4),
        )
        for kind, value in measured.items()
    ]
    # What weights may be used for depends on the music and the encoder: a person must decide it.
    return str(
        ModelCardData(
            license="other",
            license_name=f"music: {record.licence or 'not known'}; "
            f"encoder: {record.representation_card['licence']}",
            library_name="mgc",
            pipeline_tag="audio-classification",
            tags=["audio-classification", "music", "music-genre-classification"],
            model_name=record.run_id,
            eval_results=results,
        ).to_yaml()
    )
