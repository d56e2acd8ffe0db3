"""A linear probe: how much of the genres do pooled features hold, before any network is trained?

    python genre_probe.py songs.zarr

Mean and deviation of each mel band, and pooled lyrics (zeros where there are none); one logistic regression a genre;
tested on artists not trained on.
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
sound = []
for batch in store.batches(["mel", "mel_frames"], 64):
    for mel, frames in zip(batch["mel"].astype(np.float32), batch["mel_frames"], strict=True):
        heard = mel[:, : max(1, frames)]
        sound.append(np.concatenate([heard.mean(axis=1), heard.std(axis=1)]))
parts = {"sound": np.stack(sound)}
if "lyrics_pooled" in store.features:
    parts["words"] = np.nan_to_num(store["lyrics_pooled"][:])
    parts["both"] = np.concatenate([parts["sound"], parts["words"]], axis=1)

labels = store.labels()
artists = ["/".join(names) or f"unknown {i}" for i, names in enumerate(store.tracks.column("artists").to_pylist())]
if len(set(artists)) < 2:
    sys.exit("all tracks are by one artist: there is nobody to test on")
folds = GroupKFold(min(4, len(set(artists))))
model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000, class_weight="balanced"))


def probed(features, y):
    """Scores of every track by a model that heard none of its artist."""
    return cross_val_predict(model, features, y, groups=artists, cv=folds, method="decision_function")


heard = [train for train, _ in folds.split(labels, groups=artists)]  # each must hold tracks with a genre and without
learnt = [i for i in range(labels.shape[1]) if all(0 < labels[train, i].sum() < len(train) for train in heard)]
if not learnt:
    sys.exit(f"{len(store)} tracks are too few: no genre can be learnt in each of {folds.n_splits} folds")
print(f"{len(store)} tracks, {len(learnt)} of {labels.shape[1]} genres can be learnt in each of {folds.n_splits} folds")
print(f"mean average precision of a guess by frequency: {labels[:, learnt].mean():.3f}")
for name, features in parts.items():
    precision = [average_precision_score(labels[:, i], probed(features, labels[:, i])) for i in learnt]
    print(f"mean average precision from {name}: {np.mean(precision):.3f}")
