"""Test checkpoints: exact round trips, repair, and refusal of damaged files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mgc.cache.durable import replace_file
from mgc.cache.errors import RunError
from mgc.heads.runs.checkpoint import (
    RunState,
    find_state,
    publish_folder,
    read_sealed,
    restore,
    save_state,
    saved_random,
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
        hidden = model[:4](torch.randn(5, 1, 8, 8, generator=generator))  # the last layer has no gradient
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


def test_training_resumed_from_a_checkpoint_gives_identical_weights(tmp_path: Path) -> None:
    model, optimizer = saved_run(tmp_path)
    steps(model, optimizer, 4, seed=2)
    again = small_model(99)
    optimizer = adam(again)
    state, _ = find_state(tmp_path)
    assert state is not None
    restore(tmp_path, state, again, optimizer)
    steps(again, optimizer, 4, seed=2)
    assert (state.epoch, state.step) == (1, 3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def three_epochs(run: Path) -> RunState:
    """Save three epochs, of which the first is the best."""
    model, optimizer = saved_run(run)
    state, _ = find_state(run)
    assert state is not None
    for epoch in (2, 3):
        steps(model, optimizer, 1, seed=epoch)
        state.epoch = epoch
        save_state(run, state, model, optimizer)
    return state


def test_newest_two_epochs_and_the_best_weights_are_kept(tmp_path: Path) -> None:
    model, _ = saved_run(tmp_path / "first")
    state = three_epochs(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run" / "last").iterdir()} == {
        "state-000002.json",
        "optimizer-000002.safetensors",
        "weights-000002.safetensors",
        "state-000003.json",
        "optimizer-000003.safetensors",
        "weights-000003.safetensors",
        "weights-000001.safetensors",
    }
    best = small_model(5)
    best.load_state_dict(load_file(state_file(tmp_path / "run", state, "best")))
    assert all(torch.equal(value, best.state_dict()[name]) for name, value in model.state_dict().items())


def test_checkpoint_within_an_epoch_is_kept_until_its_end(tmp_path: Path) -> None:
    model, optimizer = saved_run(tmp_path)
    state, _ = find_state(tmp_path)
    assert state is not None
    for n_steps in (2, 5):
        within = dataclasses.replace(state, within={"steps": n_steps, "sums": [0.1, 0.2, 0.3], "seconds": 1.0})
        save_state(tmp_path, within, model, optimizer, random={"cpu": torch.get_rng_state()})
    newest, _ = find_state(tmp_path)
    assert newest is not None
    assert newest.point == (1, 5)
    assert newest.within == {"steps": 5, "sums": [0.1, 0.2, 0.3], "seconds": 1.0}
    assert torch.equal(saved_random(tmp_path, newest)["cpu"], torch.get_rng_state())
    assert not list((tmp_path / "last").glob("*000001+000002*"))
    newest.epoch, newest.within = 2, None
    save_state(tmp_path, newest, model, optimizer)
    assert not list((tmp_path / "last").glob("*+*"))


def corrupt(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-5] if damage == "cut" else data)


@pytest.mark.parametrize("damage", ["cut", "altered", "missing"])
@pytest.mark.parametrize("name", ["state-000003.json", "weights-000003.safetensors", "optimizer-000003.safetensors"])
def test_damaged_checkpoint_is_reported_and_the_previous_one_is_used(tmp_path: Path, name: str, damage: str) -> None:
    three_epochs(tmp_path)
    corrupt(tmp_path / "last" / name, damage)
    state, warnings = find_state(tmp_path)
    assert state is not None
    assert state.epoch == 2
    if (name, damage) == ("state-000003.json", "missing"):  # without its state file, the checkpoint was never committed
        assert warnings == []
        return
    assert len(warnings) == 1
    assert name in warnings[0]
    assert warnings[0].endswith("resuming from the end of epoch 2")


def test_error_lists_all_damaged_checkpoints_if_none_is_intact(tmp_path: Path) -> None:
    three_epochs(tmp_path)
    corrupt(tmp_path / "last" / "state-000003.json", "cut")
    corrupt(tmp_path / "last" / "optimizer-000002.safetensors", "altered")
    with pytest.raises(RunError, match=r"state-000003.*optimizer-000002.*no checkpoint of this run is intact"):
        find_state(tmp_path)


def test_damaged_weights_are_repaired_from_the_published_model(tmp_path: Path) -> None:
    state = three_epochs(tmp_path)
    best = state_file(tmp_path, state, "best")
    data = best.read_bytes()
    corrupt(best, "altered")
    with pytest.raises(RunError, match="weights-000001"):
        find_state(tmp_path)
    publish_folder(tmp_path / "best", {"model.safetensors": data})
    repaired, warnings = find_state(tmp_path)
    assert repaired is not None
    assert repaired.epoch == 3
    assert "repaired from" in warnings[0]
    assert best.read_bytes() == data


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    saved_run(tmp_path)
    state, _ = find_state(tmp_path)
    assert state is not None
    other = nn.Linear(3, 3)
    with pytest.raises(RunError, match="not the weights of this model"):
        restore(tmp_path, state, other, adam(other))


def test_published_folder_replaces_the_previous_one_and_its_drafts(tmp_path: Path) -> None:
    best = tmp_path / "best"
    publish_folder(best, {"a": b"1", "b": b"2"})
    (tmp_path / ".best.partial").mkdir()
    (tmp_path / ".best.partial" / "junk").write_bytes(b"left by a kill")
    publish_folder(best, {"a": b"3"})
    assert {path.name: path.read_bytes() for path in best.iterdir()} == {"a": b"3"}
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_missing_or_truncated_document_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="missing"):
        read_sealed(tmp_path / "config.json")
    replace_file(tmp_path / "config.json", b"{}")
    with pytest.raises(RunError, match="truncated or altered"):
        read_sealed(tmp_path / "config.json")
