"""Read features with h5py, without mgc.

mgc store convert songs.zarr songs.h5
python read_with_h5py.py songs.h5
"""

import json
import sys

import h5py
import numpy as np

with h5py.File(sys.argv[1], "r") as store:
    tracks = store["tracks"]  # one dataset per column; lists are JSON
    print(f"{len(tracks['id'])} tracks planned; recipe of the mels: {json.loads(store.attrs['recipe'])['mel']}")
    status = store["status"][:]  # 0 absent, 1 ok, 2 failed: a mask for every other array
    for name, row, genres in zip(tracks["id"].asstr(), tracks["row"], tracks["genres"].asstr(), strict=True):
        if status[row] != 1:
            print(f"{name}: no features")
            continue
        mel = store["mel"][row].astype(np.float32)  # (128, 1292) dB re 1.0
        frames = store["mel_frames"][row]  # later frames are padding
        print(f"{name}: {', '.join(json.loads(genres))}; {mel[:, :frames].mean():.1f} dB on average")
