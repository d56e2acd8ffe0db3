"""The mel scale is librosa's, to the bit from mel to Hz."""

from __future__ import annotations

import librosa
import numpy as np

from mgc.cache.format.mel_scale import hz_to_mel, mel_to_hz


def test_mels_are_those_of_librosa() -> None:
    hz = np.array([0.0, 50.0, 999.9, 1000.0, 1000.1, 8000.0, 22_050.0])
    np.testing.assert_array_equal([hz_to_mel(value) for value in hz], librosa.hz_to_mel(hz))
    mels = np.linspace(0, 80, 1001)
    np.testing.assert_array_equal(mel_to_hz(mels), librosa.mel_to_hz(mels))


def test_mel_to_hz_inverts_hz_to_mel() -> None:
    hz = np.array([0.0, 440.0, 1000.0, 11_025.0])
    np.testing.assert_allclose(mel_to_hz(np.array([hz_to_mel(value) for value in hz])), hz, rtol=1e-14)
