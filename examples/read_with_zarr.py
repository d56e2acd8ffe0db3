"""Read features with zarr and pyarrow, without mgc.

    python read_with_zarr.py songs.zarr

docs/store.md documents the format. A retried track has one row per attempt. Tracks that `mgc store drop` has hidden are
listed here until `mgc store compact` has run.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

path = Path(sys.argv[1])
store = zarr.open_group(path, mode="r")
tracks = pa.concat_tables(pq.read_table(file) for file in sorted((path / "tracks").glob("*.parquet")))
print(f"{tracks.num_rows} tracks planned; arrays: {', '.join(sorted(name for name, _ in store.arrays()))}")
print(f"recipe of the mels: {store.attrs['recipe']['mel']}")

status = store["status"][:]  # 0 absent, 1 ok, 2 failed: a mask for every other array
for track in tracks.to_pylist():
    row = track["row"]
    if status[row] != 1:
        print(f"{track['id']}: no features")
        continue
    mel = store["mel"][row].astype(np.float32)  # (128, 1292) dB re 1.0
    frames = store["mel_frames"][row]  # later frames are padding
    print(f"{track['id']}: {', '.join(track['genres'])}; {mel[:, :frames].mean():.1f} dB on average")
