"""The options of every command, frozen: whoever changes one changes options.json on purpose.

To write it anew: ``python tests/commands/test_options.py``.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import typer

from mgc.cli import app
from mgc.heads.config import PRESETS, TrainConfig

FROZEN = Path(__file__).with_name("options.json")


def describe_options() -> dict[str, Any]:
    """Command -> parameter -> what a user can type: its spellings, kind, range and default."""
    return dict(_walk("mgc", typer.main.get_command(app)))


def _walk(name: str, command: Any) -> list[tuple[str, dict[str, Any]]]:
    found = [(name, {option.name: _describe(option) for option in command.params})]
    for child, sub in sorted(getattr(command, "commands", {}).items()):
        found += _walk(f"{name} {child}", sub)
    return found


def _describe(option: Any) -> dict[str, Any]:
    return {
        "spellings": [*option.opts, *option.secondary_opts],
        "kind": str(option.type_descriptor.annotation),
        "range": [option.min, option.max],
        "default": None if callable(option.default) or option.default is None else str(option.default),
        "required": option.required,
        "multiple": option.multiple or option.nargs != 1,
    }


def test_options_of_every_command_match_the_snapshot() -> None:
    assert describe_options() == json.loads(FROZEN.read_text())


@pytest.mark.parametrize("command", ["train", "ablate"])
def test_defaults_that_help_states_are_those_of_the_presets(command: str) -> None:
    """Help says "A" or "A; B with --preset X or Y"; "by ..." states a rule in place of a value."""
    stated = 0
    for option in typer.main.get_command(app).commands[command].params:
        if option.name not in {field.name for field in dataclasses.fields(TrainConfig)}:
            continue
        if not isinstance(option.show_default, str):
            continue
        usual, *others = option.show_default.split("; ")
        values = dict.fromkeys(PRESETS, usual)
        for other in others:
            value, _, presets = other.partition(" with --preset ")
            values |= dict.fromkeys(presets.split(" or "), value)
        for preset, value in values.items():
            actual = TrainConfig.from_preset(preset).to_dict()[option.name]
            actual = ",".join(actual) if isinstance(actual, list) else actual
            if value.startswith("by "):
                assert actual is None, (option.name, preset)
            elif option.name != "preset":
                assert value == ("all" if actual is None else str(actual)), (option.name, preset)
            stated += 1
    assert stated > 20


if __name__ == "__main__":
    commands = [
        f"{json.dumps(command)}: {{\n"
        + ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in options.items())
        + "\n}"
        for command, options in describe_options().items()
    ]
    FROZEN.write_text("{\n" + ",\n".join(commands) + "\n}\n")
