"""Predict the language of lyrics from pooled states with logistic regression, tested on unseen artists.

python language_from_lyrics.py songs.zarr
"""

import sys
from collections import Counter

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mgc

store = mgc.open(sys.argv[1])
store = store.take(store["lyrics_tokens"][:] > 0)  # tracks with lyrics
language = np.array([name or "unknown" for name in store.tracks.column("language").to_pylist()])
store, language = store.take(language != "unknown"), language[language != "unknown"]
artists = ["/".join(names) for names in store.tracks.column("artists").to_pylist()]

model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
if len(set(artists)) < 2:
    sys.exit(f"{len(store)} tracks with lyrics in a known language by {len(set(artists))} artists are too few")
folds = GroupKFold(min(5, len(set(artists))))
if any(len(set(language[train])) < 2 for train, _ in folds.split(language, groups=artists)):
    sys.exit(
        f"{len(store)} tracks with lyrics are too few: a fold of artists has only one language in its training set"
    )
guess = cross_val_predict(model, store["lyrics_pooled"][:], language, groups=artists, cv=folds)

name, count = Counter(language.tolist()).most_common(1)[0]
print(f"{len(store)} tracks with lyrics, {len(set(language))} languages, {len(set(artists))} artists")
print(f"accuracy on unseen artists: {(guess == language).mean():.3f}")
print(f"always the most frequent ({name}): {count / len(language):.3f}")
