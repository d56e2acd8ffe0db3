"""Retrieve tracks of the same artist by cosine similarity of mean mel spectra, without training.

python artist_retrieval.py songs.zarr
"""

import sys

import numpy as np

import mgc

store = mgc.open(sys.argv[1])
artist = np.array([names[0] if names else "" for names in store.tracks.column("artists").to_pylist()])
store, artist = store.take(artist != ""), artist[artist != ""]

spectra = []
for batch in store.batches(["mel", "mel_frames"], 64):
    for mel, frames in zip(batch["mel"].astype(np.float32), batch["mel_frames"], strict=True):
        spectra.append(mel[:, : max(1, frames)].mean(axis=1))  # later frames are padding
spectra = np.stack(spectra)
spectra -= spectra.mean(axis=0)
spectra /= np.linalg.norm(spectra, axis=1, keepdims=True) + 1e-9
similarity = spectra @ spectra.T
np.fill_diagonal(similarity, -np.inf)

same = artist[:, None] == artist[None, :]
np.fill_diagonal(same, False)
queries = same.any(axis=1)  # tracks whose artist has another track
nearest = np.argsort(-similarity, axis=1, kind="stable")
print(f"{queries.sum()} of {len(store)} tracks have another track by the same artist")
for k in (1, 5, 10):
    hit = np.take_along_axis(same, nearest[:, :k], axis=1).any(axis=1)
    # k draws without replacement from the other tracks, s of them by the same artist, all miss with this probability
    others, s = len(store) - 1, same.sum(axis=1)
    miss = np.prod([np.clip(others - s - i, 0, None) / max(others - i, 1) for i in range(k)], axis=0)
    print(f"recall at {k}: {hit[queries].mean():.3f}; by chance {1 - miss[queries].mean():.3f}")
