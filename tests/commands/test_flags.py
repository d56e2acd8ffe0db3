"""Flags of a command become one value of options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest

from mgc.cache.errors import ConfigError
from mgc.commands.options import extract_flags, read_flags, source_flags, takes_flags
from mgc.commands.training import SYSTEMS
from mgc.heads.config import TrainConfig
from mgc.heads.model.config import SystemName
from mgc.pipeline.extraction.options import ExtractOptions, Scheduler
from mgc.pipeline.sources.options import SourceOptions


def call_with(maker: Callable[..., Any], **flags: Any) -> Any:
    """The options that a command gets when a user gives some flags, and no others."""
    expanded = takes_flags(maker)
    defaults = {name: flag.default for name, flag in inspect.signature(expanded).parameters.items()}
    return expanded(**defaults | flags)


def test_default_flags_give_the_default_options_of_the_api() -> None:
    assert call_with(extract_flags) == ExtractOptions()
    assert call_with(source_flags) == call_with(read_flags) == SourceOptions()


def test_every_option_has_a_flag() -> None:
    flags = {"language": ["en", "de"], "root": "audio", "limit": 3, "genre_level": "top"}
    assert call_with(source_flags, **flags) == SourceOptions(
        languages=("en", "de"), root="audio", limit=3, genre_level="top"
    )
    flags = {"features": "mel, lyrics", "shard": "2/3", "scheduler": "tls://a:1", "tls_ca": "ca.pem", "clip_s": 2.0}
    assert call_with(extract_flags, **flags) == ExtractOptions(
        features=("mel", "lyrics"), shard=(2, 3), scheduler=Scheduler(address="tls://a:1", tls_ca="ca.pem"), clip_s=2.0
    )


def test_flags_replace_the_parameter_that_they_build() -> None:
    @takes_flags
    def command(*, source: str, chosen: Annotated[SourceOptions, read_flags], quiet: bool = False) -> Any:
        return source, chosen, quiet

    names, flags = list(inspect.signature(command).parameters), inspect.signature(read_flags).parameters
    assert names == ["source", *flags, "quiet"]
    given = {name: flag.default for name, flag in flags.items()} | {"genre_delimiter": "|"}
    source, chosen, quiet = command(source="songs/", quiet=True, **given)
    assert (source, chosen.genre_delimiter, quiet) == ("songs/", "|", True)


def test_flags_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="--workers and --scheduler exclude each other"):
        call_with(extract_flags, workers=2, scheduler="tls://a:1")
    with pytest.raises(ConfigError, match="without --shard"):
        call_with(extract_flags, shard="1/2", retry_failed=True)


def test_model_takes_each_system_and_the_old_name_of_ru2023(call: Callable[..., Any], tmp_path: Path) -> None:
    assert get_args(SystemName) == SYSTEMS
    assert TrainConfig.from_preset("paper", model="ours") == TrainConfig.from_preset("paper", model="ru2023")
    for name in (*SYSTEMS, "ours"):
        assert "not a feature store" in call("train", tmp_path / "s.zarr", "-o", tmp_path / "run", "--model", name).err
    refused = call("train", tmp_path / "s.zarr", "-o", tmp_path / "run", "--model", "mine")
    assert refused.code == 2
    assert "'ru2023', 'santana', 'pandeya'" in " ".join(refused.err.replace("│", " ").split())
    assert "ours" not in call("train", "--help").out.split()
