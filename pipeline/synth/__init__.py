"""Generated demo collection: audio, lyrics and labels of its songs."""
