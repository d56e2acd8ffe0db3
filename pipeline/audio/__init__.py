"""From an audio file to the log-mel spectrogram of its clip."""
