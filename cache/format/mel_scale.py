"""Slaney's mel scale, as in librosa: convert stored mel bands to Hz.

Linear below 1 kHz (200/3 Hz per mel), logarithmic above (27 mels per factor 6.4); Slaney, "Auditory Toolbox" (1998).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_LINEAR_HZ = 200.0 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ
_LOG_STEP = np.log(6.4) / 27.0


def hz_to_mel(hz: float) -> float:
    """Convert a frequency in Hz to mel."""
    return float(_BREAK_MEL + np.log(hz / _BREAK_HZ) / _LOG_STEP) if hz >= _BREAK_HZ else hz / _LINEAR_HZ


def mel_to_hz(mels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Convert mels, of any shape, to Hz."""
    above = mels >= _BREAK_MEL
    hz = _LINEAR_HZ * mels
    hz[above] = _BREAK_HZ * np.exp(_LOG_STEP * (mels[above] - _BREAK_MEL))
    return hz
