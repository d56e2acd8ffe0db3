"""Predict genres from pooled features with a linear probe.

    python genre_probe.py songs.zarr

Audio: mean and standard deviation of each mel band. Lyrics: pooled states, zeros for tracks without lyrics. One
logistic regression per genre, cross-validated on unseen artists.
"""

import sys

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mgc

store = mgc.open(sys.argv[1])
audio = []
for batch in store.batches(["mel", "mel_frames"], 64):
    for mel, frames in zip(batch["mel"].astype(np.float32), batch["mel_frames"], strict=True):
        clip = mel[:, : max(1, frames)]
        audio.append(np.concatenate([clip.mean(axis=1), clip.std(axis=1)]))
inputs = {"audio": np.stack(audio)}
if "lyrics_pooled" in store.features:
    inputs["lyrics"] = np.nan_to_num(store["lyrics_pooled"][:])
    inputs["audio and lyrics"] = np.concatenate([inputs["audio"], inputs["lyrics"]], axis=1)

labels = store.labels()
artists = ["/".join(names) or f"unknown {i}" for i, names in enumerate(store.tracks.column("artists").to_pylist())]
if len(set(artists)) < 2:
    sys.exit("all tracks are by one artist: no artist is left for testing")
folds = GroupKFold(min(4, len(set(artists))))
model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000, class_weight="balanced"))


def probe_scores(features, y):
    """Return the score of every track by a model that was not trained on its artist."""
    return cross_val_predict(model, features, y, groups=artists, cv=folds, method="decision_function")


training_sets = [train for train, _ in folds.split(labels, groups=artists)]  # each needs positives and negatives
learnable = [i for i in range(labels.shape[1]) if all(0 < labels[t, i].sum() < len(t) for t in training_sets)]
if not learnable:
    sys.exit(f"{len(store)} tracks are too few: no genre can be learned in each of {folds.n_splits} folds")
n_genres = labels.shape[1]
print(f"{len(store)} tracks, {len(learnable)} of {n_genres} genres can be learned in each of {folds.n_splits} folds")
print(f"mean average precision of a guess by frequency: {labels[:, learnable].mean():.3f}")
for name, features in inputs.items():
    precision = [average_precision_score(labels[:, i], probe_scores(features, labels[:, i])) for i in learnable]
    print(f"mean average precision from {name}: {np.mean(precision):.3f}")
