"""What is stored and how it stays true: the feature store, readable with numpy, zarr, h5py and pyarrow alone."""
