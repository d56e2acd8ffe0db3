"""Checkpoints: what is read is what was written, or it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mgc.cache.errors import RunError
from mgc.heads.checkpoint import (
    RunState,
    load_state,
    publish_folder,
    read_sealed,
    replace_file,
    restore,
    save_state,
    state_file,
)


def small_model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2), nn.Linear(2, 2))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def adam(model: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=1e-2)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n):
        optimizer.zero_grad()
        hidden = model[:4](torch.randn(5, 1, 8, 8, generator=generator))  # the last layer never gets a gradient
        hidden.square().sum().backward()
        optimizer.step()


def state_at(epoch: int, best_epoch: int) -> RunState:
    return RunState(epoch=epoch, step=3 * epoch, config={"lr": 0.01}, task={}, best_epoch=best_epoch)


def saved_run(run: Path) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = small_model(0)
    optimizer = adam(model)
    steps(model, optimizer, 3, seed=1)
    save_state(run, state_at(1, 1), model, optimizer)
    return model, optimizer


def test_training_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path: Path) -> None:
    model, optimizer = saved_run(tmp_path)
    steps(model, optimizer, 4, seed=2)
    again = small_model(99)
    optimizer = adam(again)
    state = load_state(tmp_path)
    assert state is not None
    restore(tmp_path, state, again, optimizer)
    steps(again, optimizer, 4, seed=2)
    assert (state.epoch, state.step) == (1, 3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_only_the_newest_and_the_best_weights_are_kept(tmp_path: Path) -> None:
    model, optimizer = saved_run(tmp_path)
    best = {name: value.clone() for name, value in model.state_dict().items()}
    state = load_state(tmp_path)
    assert state is not None
    for epoch in (2, 3):
        steps(model, optimizer, 1, seed=epoch)
        state.epoch = epoch
        save_state(tmp_path, state, model, optimizer)
    assert sorted(path.name for path in (tmp_path / "last").iterdir()) == [
        "optimizer-000003.safetensors", "state.json", "weights-000001.safetensors", "weights-000003.safetensors",
    ]  # fmt: skip
    kept = small_model(5)
    kept.load_state_dict(load_file(state_file(tmp_path, state, "best")))
    assert all(torch.equal(value, kept.state_dict()[name]) for name, value in best.items())


@pytest.mark.parametrize("damage", ["cut", "altered", "missing"])
@pytest.mark.parametrize("name", ["state.json", "weights-000001.safetensors", "optimizer-000001.safetensors"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, name: str, damage: str) -> None:
    saved_run(tmp_path)
    path = tmp_path / "last" / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
        if name == "state.json":  # no state means that no epoch ended
            assert load_state(tmp_path) is None
            return
    else:
        data[-20] ^= 1
        path.write_bytes(data[:-5] if damage == "cut" else data)
    with pytest.raises(RunError, match=name):
        load_state(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    saved_run(tmp_path)
    state = load_state(tmp_path)
    assert state is not None
    other = nn.Linear(3, 3)
    with pytest.raises(RunError, match="not weights of this model"):
        restore(tmp_path, state, other, adam(other))


def test_a_folder_is_published_whole_and_replaces_the_one_before(tmp_path: Path) -> None:
    best = tmp_path / "best"
    publish_folder(best, {"a": b"1", "b": b"2"})
    (tmp_path / ".best.partial").mkdir()
    (tmp_path / ".best.partial" / "junk").write_bytes(b"left by a kill")
    publish_folder(best, {"a": b"3"})
    assert {path.name: path.read_bytes() for path in best.iterdir()} == {"a": b"3"}
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_missing_document_is_an_error_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="missing"):
        read_sealed(tmp_path / "config.json")
    replace_file(tmp_path / "config.json", b"{}")
    with pytest.raises(RunError, match="cut short or altered"):
        read_sealed(tmp_path / "config.json")
