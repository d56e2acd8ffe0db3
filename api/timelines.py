"""Files with the scores of the windows of songs, and the page that shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache.errors import ConfigError
from ..cache.messages import counted
from .shared import extra

if TYPE_CHECKING:
    from ..heads.evaluation.timeline import AddTimeline, Timeline

PAGE = ".html"
MAX_SONGS_ON_PAGE = 50


def refuse_other_timeline(path: Path | None, n_songs: int = 1) -> None:
    """Raise :class:`ConfigError` unless `path` is None, or has the suffix of a timeline that can show `n_songs`.

    Raises
    ------
    MissingExtraError
        If `path` is a page, and the extra ``report`` is not installed.
    """
    if path is None:
        return
    from ..heads.evaluation.timeline import WRITERS

    suffix, suffixes = path.suffix.lower(), (*WRITERS, PAGE)
    if suffix not in suffixes:
        raise ConfigError(f"{path}: unknown format of a timeline. Use one of the suffixes {', '.join(suffixes)}.")
    if suffix == PAGE:
        from ..reports.html import environment

        environment()
        if n_songs > MAX_SONGS_ON_PAGE:
            songs = counted(n_songs, "song")
            raise ConfigError(
                f"{path}: {songs}, a page shows up to {MAX_SONGS_ON_PAGE}. Use .parquet, or give fewer songs."
            )


@contextmanager
def timeline_file(path: Path | None, genres: Sequence[str], about: Sequence[str]) -> Iterator[AddTimeline]:
    """Yield a function that adds a song to the timeline `path`, which appears at the end; with None, it adds nothing.

    Parameters
    ----------
    about : lines on the model, for a page.
    """
    if path is None:
        yield lambda _: None
    elif path.suffix.lower() != PAGE:
        from ..heads.evaluation.timeline import write_timelines

        with write_timelines(path, genres) as add:
            yield add
    else:
        with extra("report"):
            from ..reports.timeline import write_timeline_page
        songs: list[Timeline] = []
        yield songs.append
        write_timeline_page(path, genres, songs, about)
