"""Last sections of a run's report: what it was trained with and from, the features' recipe, every setting."""

from __future__ import annotations

from collections.abc import Mapping

from .page import count, number, table, text
from .run_record import RunRecord


def provenance_section(record: RunRecord) -> str:
    """When and how it was trained, and by what recipe its features were made."""
    about, preprocessor = record.about, record.preprocessor
    told = [f"Trained from the store {about.get('store', '(unknown)')}"]
    seconds = sum(float(epoch.get("seconds") or 0.0) for epoch in record.epochs)
    if seconds:
        told.append(f" in {seconds:.0f} s of epochs")
    sessions = [
        [
            text(session["started_utc"].replace("+00:00", "").replace("T", " ")), str(session["after_epoch"]),
            f"<code>{text(session['command'])}</code>", text(_listed(session["versions"])),
            text(f"{session['device']}, {session['precision']}, {count(session['n_threads'], 'thread')}, "
                 f"{session['platform']}"),
        ]
        for session in about.get("sessions", [])
    ]  # fmt: skip
    heads = ("started (UTC)", "epochs before", "command", "versions", "on")
    when = table(heads, sessions, about="when it was trained") if sessions else "<p>When is not known.</p>"
    recipe = _recipe(record) if preprocessor else ""
    return f"<h2>Where it comes from</h2>\n<p>{text(''.join(told))}.</p>\n{when}\n{recipe}"


def _recipe(record: RunRecord) -> str:
    """Every parameter of the features, which ``predict`` follows too."""
    recipe, prints = record.preprocessor["recipe"], record.preprocessor["fingerprints"]
    rows = [[text(feature), "fingerprint", f"<code>{text(value)}</code>"] for feature, value in prints.items()]
    for feature, parameters in recipe.items():
        if isinstance(parameters, Mapping):
            rows += [[text(feature), text(name), text(value)] for name, value in parameters.items()]
        else:
            rows.append([text(feature), "", text(parameters)])
    mean, std = (number(record.preprocessor.get(name)) for name in ("mel_mean_db", "mel_std_db"))
    made = record.about.get("store_versions", {})
    by = f" Made by {_listed(made)}." if made else ""
    return (
        f"<h3>Features</h3>\n<p>Spectrograms are scaled by the mean {mean} dB and the standard deviation {std} dB of "
        f"the training tracks.{text(by)}</p>\n<details><summary>The recipe: {count(len(rows), 'line')}</summary>"
        + table(("feature", "parameter", "value"), rows, about="recipe of the features", sortable=True, find="Find")
        + "</details>"
    )


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def settings_section(record: RunRecord) -> str:
    """What each filter kept, and every setting of the run."""
    told = {**record.config, **{k: record.about[k] for k in ("device", "precision", "n_parameters", "n_validation",
            "n_train_without_lyrics", "labels_sha256") if k in record.about}}  # fmt: skip
    rows = [[text(name), text(value)] for name, value in told.items()]
    kept = "".join(
        f"<li>{text(k.get('filter'))}: {text(k.get('kept'))} of {text(k.get('of'))} {text(k.get('unit'))} kept</li>"
        for k in record.about.get("kept", [])
    )
    return (
        (f"<h2>What each filter kept</h2>\n<ul>{kept}</ul>\n" if kept else "")
        + f"<h2>Settings</h2>\n<details><summary>{count(len(told), 'setting')}</summary>"
        f"{table(['setting', 'value'], rows, about='settings', sortable=True, find='Find a setting')}</details>"
    )
