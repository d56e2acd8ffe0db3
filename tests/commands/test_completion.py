"""Shell completion: in a real bash, and what zsh and fish ask for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mgc.commands import options
from mgc.pipeline.extractors.registry import extractor_names
from mgc.pipeline.text import models

MGC = Path(sys.executable).with_name("mgc")


def ask(**variables: str) -> str:
    return subprocess.run([MGC], env=os.environ | variables, capture_output=True, text=True, check=True).stdout


def test_bash_completion_works_after_installation(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not here")
    environment = os.environ | {"HOME": str(tmp_path), "PATH": f"{MGC.parent}{os.pathsep}{os.environ['PATH']}"}

    def in_bash(script: str) -> str:
        command = [bash, "--norc", "-c", f"{script}; true"]  # a second command, or bash becomes mgc
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    assert "_mgc_completion" in in_bash("mgc --show-completion")
    assert "bash completion installed" in in_bash("mgc --install-completion")
    tab = 'COMP_WORDS=({}); COMP_CWORD={}; _mgc_completion mgc; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = in_bash(f". ~/.bashrc; {tab.format('mgc pre', 1)}; {tab.format('mgc predict --win', 2)}")
    assert done.split() == ["predict", "--windows"]


def offered(words: str) -> list[str]:
    lines = ask(_MGC_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))).splitlines()
    return [line for line in lines if line]


def test_completion_offers_text_models_and_extractors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "bert").mkdir(parents=True)
    (tmp_path / "models" / "notes.txt").touch()
    (tmp_path / ".hidden").mkdir()
    monkeypatch.chdir(tmp_path)
    for command in ("extract", "plan", "predict"):
        assert offered(f"mgc {command} --text-model m") == ["minilm", "multilingual", "models/"]
    assert offered("mgc extract --text-model models/") == ["models/bert/"]
    assert offered("mgc extract --text-model ") == ["bert-base-uncased", "minilm", "multilingual", "models/"]
    assert offered("mgc extract --text-model nowhere/") == []
    assert "pooled_mel" in offered("mgc extract --add ")
    assert offered("mgc extract --add x") == []


def test_completion_offers_exactly_the_existing_names() -> None:
    assert list(options.complete_extractor("")) == list(extractor_names())
    assert set(options.TEXT_MODELS) == set(models._WEIGHTS_SHA256)


def test_zsh_and_fish_have_completion() -> None:
    assert ask(_MGC_COMPLETE="source_zsh").lstrip().startswith("#compdef mgc")
    assert "complete --command mgc" in ask(_MGC_COMPLETE="source_fish")
    asked = {"_TYPER_COMPLETE_ARGS": "mgc store ver"}
    assert '"verify"' in ask(_MGC_COMPLETE="complete_zsh", **asked)
    fish = ask(_MGC_COMPLETE="complete_fish", _TYPER_COMPLETE_FISH_ACTION="get-args", **asked)
    assert fish.partition("\t")[0] == "verify"
