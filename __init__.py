"""mgc: multi-label music genre classification from sound and lyrics, and a feature store.

Importing ``mgc`` imports nothing heavy; what needs torch, librosa or dask is imported on first use.
"""

from __future__ import annotations

__version__ = "0.1.0"
