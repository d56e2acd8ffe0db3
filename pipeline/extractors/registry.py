"""Extractor plug-ins: each computes one array from a track's clip or lyrics, and can be added to any store.

A package registers its extractors under the entry point group ``mgc.extractors``::

    [project.entry-points."mgc.extractors"]
    tempo = "my_package:TEMPO"

where ``TEMPO`` is an :class:`Extractor`; ``mgc extract SOURCE -o STORE --add tempo`` then adds its feature.
"""

from __future__ import annotations

from importlib import metadata

from ...cache.distribution import NAME
from ...cache.errors import ConfigError
from ...cache.messages import did_you_mean
from .extractor import Extractor
from .musicnn import MUSICNN, MUSICNN_TAGS
from .pooled_mel import POOLED_MEL

GROUP = "mgc.extractors"
BUILT_IN = {extractor.name: extractor for extractor in (POOLED_MEL, MUSICNN, MUSICNN_TAGS)}


def extractor_names() -> dict[str, str]:
    """Return name -> package of every extractor that is installed."""
    packages = dict.fromkeys(BUILT_IN, NAME)
    for point in metadata.entry_points(group=GROUP):
        packages.setdefault(point.name, point.dist.name if point.dist is not None else point.value)
    return dict(sorted(packages.items()))


def load_extractor(name: str) -> Extractor:
    """Return the extractor of that name.

    Raises
    ------
    ConfigError
        If there is none, two packages provide one, or the entry point is not an extractor of that name.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    points = {(point.value, point.group): point for point in metadata.entry_points(group=GROUP, name=name)}
    if not points:
        raise ConfigError(f"no extractor {name!r} is installed; {did_you_mean(name, list(extractor_names()))}")
    if len(points) > 1:
        raise ConfigError(
            f"extractor {name!r}: provided by {' and by '.join(value for value, _ in points)}. Remove one."
        )
    (point,) = points.values()
    try:
        extractor = point.load()
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {error}"
        raise ConfigError(f"extractor {name!r} ({point.value}) cannot be loaded: {cause}") from error
    if not isinstance(extractor, Extractor) or extractor.name != name:
        raise ConfigError(f"entry point {name!r} of {GROUP}: {point.value} is no mgc.Extractor of that name")
    return extractor
