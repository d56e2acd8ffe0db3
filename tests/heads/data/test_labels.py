"""Test the choice of genres: order and counts of filters, from training tracks only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgc.cache.errors import ConfigError, TrainingError
from mgc.heads.data.labels import FilterCount, choose_genres, genre_matrix, left_out, read_genres_file

NAMES = ["blues", "folk", "jazz", "metal", "rock"]
# tracks with:  rock 4, jazz 3, folk 3, metal 1, blues 0
LABELS = genre_matrix(
    pa.array([["rock", "jazz"], ["rock", "folk"], ["rock", "jazz", "folk"], ["rock", "metal"], ["jazz", "folk"]]), NAMES
)


@given(st.lists(st.lists(st.sampled_from([*NAMES, "unlisted"]), max_size=4), max_size=12))
def test_genre_matrix_marks_the_genres_of_each_track(lists: list[list[str]]) -> None:
    matrix = genre_matrix(pa.array(lists, pa.list_(pa.string())), NAMES)
    assert matrix.tolist() == [[name in names for name in NAMES] for names in lists]


def test_filters_apply_in_order_and_report_counts() -> None:
    chosen = choose_genres(LABELS, NAMES, listed=["metal", "rock", "jazz", "folk"], top_genres=3, min_genre_count=4)
    assert [str(step) for step in chosen.steps] == [
        "1 of 5 genres is not learned (--genres-file)",
        "1 of 4 genres is not learned (--top-genres 3)",
        "2 of 3 genres have fewer than 4 training tracks and are not learned",
    ]
    assert chosen.names == ("rock",)
    assert chosen.train_counts.tolist() == [4]


@pytest.mark.parametrize(
    ("name", "kept", "sentence"),
    [
        ("labelled", 36, "4 of 40 tracks have no label and are left out"),
        ("min_labels=1", 39, "1 of 40 tracks has none of the learned genres and is left out"),
        ("min_labels=2", 0, "40 of 40 tracks have fewer than 2 of the learned genres and are left out"),
        ("min_labels=1", 40, None),
    ],
)
def test_filters_are_described_by_what_they_leave_out(name: str, kept: int, sentence: str | None) -> None:
    assert left_out([FilterCount(filter=name, kept=kept, of=40, unit="tracks")]) == ([sentence] if sentence else [])


def test_ties_of_top_genres_go_by_name_and_columns_keep_the_order_of_the_store() -> None:
    assert choose_genres(LABELS, NAMES, top_genres=2).names == ("folk", "rock")


def test_listed_genres_keep_the_order_of_the_list() -> None:
    assert choose_genres(LABELS, NAMES, listed=["rock", "folk"]).names == ("rock", "folk")


def test_genres_without_training_track_are_dropped_unless_min_genre_count_is_0() -> None:
    assert "blues" not in choose_genres(LABELS, NAMES).names
    assert "blues" in choose_genres(LABELS, NAMES, min_genre_count=0).names


def test_unknown_genre_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"'mettal'.*nearest: 'metal'"):
        choose_genres(LABELS, NAMES, listed=["rock", "mettal"])


def test_empty_choice_is_refused_with_the_counts_of_filters() -> None:
    with pytest.raises(TrainingError, match="5 of 5 genres have fewer than 100 training tracks"):
        choose_genres(LABELS, NAMES, min_genre_count=100)


def test_genres_file_has_one_name_per_line(tmp_path: Path) -> None:
    path = tmp_path / "genres.txt"
    path.write_text("rock\n\n  drum & bass \r\n", encoding="utf-8-sig")
    assert read_genres_file(path) == ("rock", "drum & bass")
    path.write_text("rock\njazz\nrock\n")
    with pytest.raises(ConfigError, match="duplicate genres: rock"):
        read_genres_file(path)
    path.write_text("\n")
    with pytest.raises(ConfigError, match="no genre"):
        read_genres_file(path)


def test_matrix_of_chunked_lists_equals_that_of_a_plain_list() -> None:
    chunks = pa.chunked_array([[["rock"]], [["jazz", "rock"], []]])
    assert np.array_equal(genre_matrix(chunks, NAMES), genre_matrix(pa.array([["rock"], ["jazz", "rock"], []]), NAMES))
