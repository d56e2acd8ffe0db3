"""Phrases that commands, report pages and model cards share: artists of tracks, units of a bootstrap, thresholds."""

from __future__ import annotations

from ...cache.messages import counted


def by_artists(n_tracks: int, n_groups: int, n_with_artist: int | None) -> str:
    """Return whose tracks these are.

    Parameters
    ----------
    n_groups : artists, plus tracks of unknown artists, each of which is a group of its own.
    n_with_artist : tracks with a known artist; None in files of versions that did not count them.

    Examples
    --------
    >>> by_artists(30, 20, 30), by_artists(30, 30, 0), by_artists(30, 25, 20), by_artists(30, 25, None)
    ('by 20 artists', 'by unknown artists', 'in 25 groups (artist known for 20 of 30 tracks)', 'in 25 groups')
    """
    if n_with_artist == n_tracks:
        return f"by {counted(n_groups, 'artist')}"
    if n_with_artist == 0:
        return "by unknown artists"
    known = "" if n_with_artist is None else f" (artist known for {n_with_artist} of {n_tracks} tracks)"
    return f"in {counted(n_groups, 'group')}{known}"


def resampled(n_tracks: int, n_with_artist: int | None) -> str:
    """Return what a bootstrap over groups resamples; parameters as in :func:`by_artists`.

    >>> resampled(30, 30), resampled(30, 0), resampled(30, 20)
    ('artists', 'tracks', 'artists, and tracks of unknown artists')
    """
    if n_with_artist == n_tracks:
        return "artists"
    return "tracks" if n_with_artist == 0 else "artists, and tracks of unknown artists"


def tuned_on(n_tracks: int | None) -> str:
    """Return how thresholds were set, on `n_tracks` validation tracks; None in files of versions without that number.

    >>> tuned_on(60), tuned_on(0), tuned_on(None)
    ('tuned on 60 validation tracks', 'not tuned: no validation track', 'tuned on validation tracks')
    """
    if n_tracks is None:
        return "tuned on validation tracks"
    return f"tuned on {counted(n_tracks, 'validation track')}" if n_tracks else "not tuned: no validation track"
