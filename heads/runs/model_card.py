"""The model card: ``README.md`` of a published model, for people who have only the folder.

The Hugging Face hub reads its front matter, including the validation figures (``model-index``), so the folder can be
uploaded unchanged. Unknown facts (collection, terms, licence) are marked as to be filled in. Nothing here depends on a
test track.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ...cache.format.recipe import ExtractorRecipe, Recipe
from ...cache.messages import counted, has_intervals, interval, number, printable
from ..config import TrainConfig
from ..data.artist_groups import count_with_artist
from ..data.labels import left_out
from ..data.task import Task
from ..metrics.names import CARD_METRICS
from ..metrics.phrases import by_artists, resampled, tuned_on
from ..metrics.thresholds import Thresholds
from ..model.audio_cnn import CHANNELS
from ..model.config import MEL, ModelConfig
from ..model.model import ABOUT

_number = functools.partial(number, missing="undefined")
TO_FILL_IN = "[to be filled in by the publisher of this model]"
_METRIC_TYPES = {"map": "mean_average_precision", "jaccard": "jaccard", "f1": "f1"}
"""By the first part of a key of `CARD_METRICS`: the types of the Hugging Face hub."""

_POLICIES = {
    "artist": ": no artist is in two splits",
    "random": ": tracks of one artist may be in several splits, so the metrics are optimistic",
    "stratified": ": by labels; tracks of one artist may be in several splits, so the metrics are optimistic",
    "manifest": ": the split of the collection",
}
PRESETS_SHOWN = {
    "default": "default",
    "paper": "paper (Ru et al. 2023, Eq. 1 to 7 as printed)",
    "paper-tuned": "paper-tuned (the components of Ru et al. 2023, with open choices set so that they learn)",
    "plus": "plus, of mgc 0.1",
    None: "none: custom options, or the defaults of mgc 0.1",
}
HEADS = {
    "graph": "genre graph",
    "linear": "linear",
    "query": "genre queries",
}
_INPUTS = {"both": "audio and lyrics", "audio": "audio", "lyrics": "lyrics"}


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """Contents of a card besides the task: `epoch` of the weights, and its validation figures.

    Attributes
    ----------
    validation : metrics of the epoch, ``empty_share`` and ``bce`` among them.
    estimates : name -> value, low, high; of :func:`mgc.heads.metrics.validation.validation_intervals`.
    finished : whether all epochs are trained and `estimates` has intervals.
    """

    epoch: int
    n_parameters: int
    precision: str
    thresholds: Thresholds
    validation: Mapping[str, float | None]
    estimates: Mapping[str, Mapping[str, float | None]]
    finished: bool


def model_card(
    task: Task, config: TrainConfig, recipe: Recipe, facts: CardFacts, added: Mapping[str, ExtractorRecipe]
) -> str:
    """Return the text of the card, Markdown with YAML front matter; `added` are the feature sets of the audio input."""
    sections = [
        _front_matter(config, task, facts),
        _summary(task, config),
        _use(recipe, task, added),
        _data(task, recipe, added),
        _recipe(task, config, recipe, facts),
        _metrics(task, facts),
        _genres(task, facts.thresholds),
        _limits(task, config, facts),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(config: TrainConfig, task: Task, facts: CardFacts) -> str:
    inputs = {"both": ["audio", "lyrics"], "audio": ["audio"], "lyrics": ["lyrics"]}[task.model.modalities]
    matter: dict[str, Any] = {
        "library_name": "mgc",
        "pipeline_tag": "text-classification" if inputs == ["lyrics"] else "audio-classification",
        "license": "other",
        "license_name": "to-be-filled-in",
        "tags": ["music", "music-genre-classification", "multi-label-classification", *inputs, "mgc"],
    }
    if facts.estimates:
        matter["model-index"] = _model_index(config, facts, matter["pipeline_tag"])
    return f"---\n{yaml.safe_dump(matter, sort_keys=False)}---"


def _model_index(config: TrainConfig, facts: CardFacts, task_type: str) -> list[dict[str, Any]]:
    """Return the validation figures in the form that the hub shows."""
    metrics = [
        {"type": _METRIC_TYPES[key.partition("_")[0]], "value": round(value, 4), "name": name}
        for key, name in CARD_METRICS.items()
        if (value := facts.estimates.get(key, {}).get("value")) is not None
    ]
    dataset = {"type": "to-be-filled-in", "name": TO_FILL_IN, "split": "validation"}
    task = {"type": task_type, "name": "multi-label music genre classification"}
    return [{"name": f"mgc-{config.model}", "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}]


def _summary(task: Task, config: TrainConfig) -> str:
    return f"""# Music genres from {_INPUTS[task.model.modalities]}

A multi-label classifier, trained with `mgc train`. It scores {counted(len(task.genres.names), "genre")} independently.
System `{config.model}`: {ABOUT[config.model]}.

- Licence of these weights: {TO_FILL_IN}. The licence of mgc covers the software, not weights learned from a collection.
- Contact: {TO_FILL_IN}"""


def _use(recipe: Recipe, task: Task, added: Mapping[str, ExtractorRecipe]) -> str:
    lyrics = " --lyrics song.txt" if task.model.modalities != "audio" else ""
    encoder = ""
    if recipe.lyrics is not None and task.model.modalities != "audio":
        encoder = f"""
The text encoder is not in this folder. It is `{recipe.lyrics.model}`, weights sha256
`{recipe.lyrics.weights_sha256}`. mgc finds it by name or by `--text-model PATH`, and refuses any other encoder."""
    if added:
        names = ", ".join(f"`{name}`" for name in added)
        encoder += f"""
The extractors of the audio features are not in this folder: {names}. mgc computes them from audio files, and refuses
another version or other weights; `preprocessor.json` lists them."""
    return f"""## Use

    mgc predict THIS_FOLDER song.mp3{lyrics}
    mgc predict THIS_FOLDER songs.zarr -o scores.parquet

mgc needs only this folder. It checks the hash of every file except this one. Features with another recipe are
refused.{encoder}

Intended use: music research, genre suggestions for a catalogue that people check, studies of relations between genres.
Out-of-scope use: automatic decisions on sale, recommendation, payment or removal, and attribution of recordings."""


def _data(task: Task, recipe: Recipe, added: Mapping[str, ExtractorRecipe]) -> str:
    groups = task.groups[: task.n_train]
    artists = by_artists(task.n_train, len(set(groups)), count_with_artist(groups))
    lengths = task.train_labels.sum(axis=1)
    mel, lyrics = recipe.mel, recipe.lyrics
    clip = tokens = "none"
    if mel is not None:
        clip = f"{mel.clip_s:g} s of each track ({mel.offset})"
        if MEL in task.model.audio:
            clip += f", {mel.sample_rate_hz} Hz mono, {mel.n_mels} mel bands, hop {mel.hop_length}"
    clip += "".join(f"; `{name}`, version {of.version}: {_cell(of.description)}" for name, of in added.items())
    if lyrics is not None:
        tokens = f"at most {lyrics.max_tokens} tokens per track, states of the frozen encoder in {lyrics.precision}"
    selected = "the last epoch, and 0.5, as there was no validation track"
    if task.n_validation:
        selected = f"selected on {counted(task.n_validation, 'validation track')}"
    policy = _POLICIES.get(task.split.policy, "")
    labels = ""
    if task.labels_sha256 is not None:
        labels = f"\n- Labels: from a separate file instead of the collection, sha256 `{task.labels_sha256}`."
    return f"""## Data

- Collection, version, terms, languages: {TO_FILL_IN}
- Trained on {counted(task.n_train, "track")} {artists}; {task.n_without_lyrics} of the tracks without lyrics;
  genres per track: {lengths.mean():.2f} on average.{labels}
- Epoch and thresholds: {selected}.
  Split `{task.split.policy}`{policy}.
- Filters: {"; ".join(left_out(task.genres.steps)) or "none"}.
- Audio: {clip}.
- Lyrics: {tokens}."""


def _recipe(task: Task, config: TrainConfig, recipe: Recipe, facts: CardFacts) -> str:
    model, selected = task.model, "best by validation mAP" if task.n_validation else "last"
    rows = {
        "preset": PRESETS_SHOWN[config.preset],
        "parameters": f"{facts.n_parameters}",
        "audio encoder": audio_encoder(model) if model.modalities != "lyrics" else "none",
        "cross-modal attention": _on(model.attention),
        "head": HEADS[model.head] + _genre_prompts(task, recipe),
        "audio-lyrics contrastive loss": f"{_on(model.contrastive)}, lambda {config.lambda_:g}"
        if model.contrastive
        else "off",
        "loss": f"{config.loss}, {config.bce_reduction} over genres"
        + (", biases initialised to the log odds of the genres" if config.prior_bias else ""),
        "optimizer": f"{config.optimizer}, learning rate {config.learning_rate:g}, weight decay "
        f"{config.weight_decay:g}, schedule "
        + (
            f"halving every {counted(config.lr_halve_every, 'epoch')}"
            if config.schedule == "halving"
            else config.schedule
        ),
        "batch size, seed": f"{config.batch_size}, {config.seed}",
        "epoch of the weights": f"{facts.epoch}, the {selected} so far",
        "precision": facts.precision,
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    graph = "" if task.graph is None else ", `graph.json` the genre graph"
    return f"""## Recipe

| | |
|---|---|
{lines}

`config.json` contains every option, `preprocessor.json` the recipe of the features{graph}."""


def audio_encoder(model: ModelConfig) -> str:
    """Return the encoders of the audio inputs: the size of the CNN, and the projected feature sets."""
    width = CHANNELS[model.encoder][-1]
    cnn = [f"{model.encoder} CNN of the spectrogram" if model.embeddings else model.encoder] * (MEL in model.audio)
    return ", ".join([*cnn, *(f"`{name}`, projected to {width}" for name in model.audio if name != MEL)])


def _genre_prompts(task: Task, recipe: Recipe) -> str:
    renamed = [name for name in task.genres.names if name in recipe.genre_names]
    if task.model.head == "linear" or not renamed:
        return ""
    return f"; {len(renamed)} of {len(task.genres.names)} genres have a genre name prompt"


def _metrics(task: Task, facts: CardFacts) -> str:
    if not facts.estimates:
        return "## Metrics\n\nThere was no validation track."
    units = resampled(task.n_validation, count_with_artist(task.groups[task.n_train :]))
    if has_intervals(facts.estimates):
        caption = f"On the validation tracks, with 95 % confidence intervals (bootstrap over {units}):"
        heads = "| metric | value | 95 % CI |\n|---|---|---|"
    else:
        why = f"too few {units}" if facts.finished else "they are computed after the last epoch"
        caption = f"On the validation tracks, without confidence intervals ({why}):"
        heads = "| metric | value |\n|---|---|"
    lines = "\n".join(
        f"| {name} | {_number(estimate['value'])} |{interval(estimate, ' {} to {} |')}"
        for key, name in CARD_METRICS.items()
        if (estimate := facts.estimates.get(key))
    )
    return f"""## Metrics

{caption}

{heads}
{lines}

Share of tracks without a genre at threshold 0.5: {_number(facts.validation.get("empty_share"))}. Epoch and thresholds
were selected on these tracks, so the values are optimistic. `mgc evaluate` writes the test metrics to the run's
`metrics.json`, not to this folder, which must not depend on test tracks. Test metrics: {TO_FILL_IN}"""


def _genres(task: Task, thresholds: Thresholds) -> str:
    counts = task.train_labels.sum(axis=0).tolist()
    rows = zip(task.genres.names, counts, thresholds.per_genre, thresholds.fallback, strict=True)
    lines = "\n".join(
        f"| {_cell(name)} | {count} | {cut:.4f}{'*' if took_overall else ''} |"
        for name, count, cut, took_overall in rows
    )
    k = f"{thresholds.shrinkage:g}"
    about = f"All thresholds are {thresholds.overall:g}, {tuned_on(thresholds.n_tracks)}."
    if thresholds.n_tracks:
        about = f"""Overall threshold: {thresholds.overall:.4f} (paper: 0.5). The table has per-genre thresholds,
{tuned_on(thresholds.n_tracks)} and shrunk towards the overall one by {k} / (n + {k})
for a genre with n of these tracks. * marks genres without a validation track."""
    return f"""## Genres and thresholds

{about}

| genre | training tracks | threshold |
|---|---|---|
{lines}"""


def _limits(task: Task, config: TrainConfig, facts: CardFacts) -> str:
    counts = task.train_labels.sum(axis=0)
    rare = int((counts < 20).sum())
    limits = [
        "Genres follow the labels of the collection. Other annotators label differently, and rare genres are labelled "
        "less reliably.",
        "Scores are not calibrated probabilities; `mgc evaluate` reports their calibration.",
        f"{rare} of {len(counts)} genres have fewer than 20 training tracks; their scores are unreliable.",
    ]
    if task.model.modalities == "both":
        limits.append(
            "A track without lyrics is scored from audio only."
            if task.n_without_lyrics or config.modality_dropout > 0
            else "No training track lacked lyrics, so scores of tracks without lyrics are unreliable."
        )
    if not facts.thresholds.n_tracks:
        limits.append("There was no validation track: thresholds are 0.5, and no epoch was selected.")
    lines = "\n".join(f"- {line}" for line in limits)
    return f"""## Limits

{lines}

Ru, Zhang, Wang, Cheng and Xiao: "Improving Music Genre Classification from Multi-Modal Properties of Music and Genre
Correlations Perspective", ICASSP 2023. This is an independent implementation, without the authors' weights."""


def _cell(name: str) -> str:
    """Escape a name for a table cell and for terminals."""
    return printable(" ".join(name.split())).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _on(used: bool) -> str:
    return "on" if used else "off"
