"""The feature store, which numpy, zarr, h5py and pyarrow alone can read."""
