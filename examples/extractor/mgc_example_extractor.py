"""Two extractor plug-ins: one for audio, one for lyrics.

pip install ./examples/extractor
mgc extractors
mgc extract songs/ -o songs.zarr --add brightness
"""

import re

import numpy as np

from mgc import Extractor

QUANTILES = (0.25, 0.5, 0.75)


def brightness(samples, sample_rate_hz):
    """Return the frequencies in Hz below which a clip has a quarter, a half and three quarters of its energy."""
    energy = np.cumsum(np.abs(np.fft.rfft(samples.astype(np.float64))) ** 2)
    if energy[-1] == 0:
        return [0.0] * len(QUANTILES)  # silence
    frequencies = np.fft.rfftfreq(len(samples), 1 / sample_rate_hz)
    return frequencies[np.searchsorted(energy, np.multiply(QUANTILES, energy[-1]))]


def word_variety(text):
    """Return the number of distinct words divided by the number of words, 0 to 1."""
    words = re.findall(r"\w+", text.casefold())
    return len(set(words)) / len(words) if words else 0.0


BRIGHTNESS = Extractor(
    name="brightness",
    version="1",
    input="clip",
    dims=("energy_quantile",),
    shape=(len(QUANTILES),),
    dtype="float32",
    unit="Hz",
    description="frequencies below which these shares of the energy lie",
    compute=brightness,
    parameters={"quantiles": QUANTILES},
)
WORD_VARIETY = Extractor(
    name="word_variety",
    version="1",
    input="text",
    dims=(),
    shape=(),
    dtype="float32",
    unit="1",
    description="distinct words by all words",
    compute=word_variety,
)
