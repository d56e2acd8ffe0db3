"""Compare a store with a model of dictionaries after random sequences of append, commit, retry, repair and drop."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from benchmarks.worlds.small_store import RECIPE, features
from mgc.cache.format.plan import read_plan, read_tracks
from mgc.cache.format.records import committed
from mgc.cache.format.schema import FAILED, OK, Flag, track_arrays
from mgc.cache.format.tables import OUTCOME_SCHEMA, plan_table
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.compact import compact
from mgc.cache.upkeep.quarantine import quarantine
from mgc.cache.upkeep.verify import verify
from mgc.cache.writing.commits import commit_part, roll_forward
from mgc.cache.writing.creation import append_generation, create_store
from mgc.cache.writing.takedowns import drop, dropped_ids

PART_ROWS = 3


def fails(name: str, attempt: int) -> bool:
    """Return whether a track fails at its n-th attempt, counted from 0."""
    number = int(name[1:])
    return number % 4 == 1 if attempt == 0 else number % 8 == 1


class StoreMachine(RuleBasedStateMachine):
    """State machine with a model: the track of each array row, the committed parts, and the takedowns."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="mgc-machine-"))
        self.path = self.folder / "s.zarr"
        self.names = [f"t{i:03}" for i in range(4)]
        self.row_of: dict[int, str] = dict(enumerate(self.names))
        self.next_part = 2
        self.committed: set[int] = set()
        self.down: set[str] = set()
        create_store(
            self.path,
            tracks=self._table(self.names),
            recipe=RECIPE,
            part_rows=PART_ROWS,
            genres=["rock"],
            genre_embedding=np.ones((1, 12), np.float32),
        )

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @staticmethod
    def _table(names: list[str]) -> pa.Table:
        return plan_table([{"id": n, "path": f"{n}.mp3", "artists": [], "genres": ["rock"]} for n in names])

    def _plan_rows(self, names: list[str]) -> None:
        for i, name in enumerate(sorted(names)):
            self.row_of[self.next_part * PART_ROWS + i] = name
        self.next_part += -(-len(names) // PART_ROWS)

    def _attempt(self, row: int) -> int:
        return sum(name == self.row_of[row] and other < row for other, name in self.row_of.items())

    def _ok(self, row: int) -> bool:
        return row // PART_ROWS in self.committed and not fails(self.row_of[row], self._attempt(row))

    def _newest(self) -> dict[str, int]:
        return {name: row for row, name in sorted(self.row_of.items())}

    @rule(n=st.integers(1, 5))
    def append(self, n: int) -> None:
        if len(self.names) > 24:
            return
        new = [f"t{len(self.names) + i:03}" for i in range(n)]
        append_generation(self.path, read_plan(self.path), "append", self._table(new))
        self.names += new
        self._plan_rows(new)

    @rule(share=st.floats(0.1, 1.0), order=st.randoms(use_true_random=False))
    def extract(self, share: float, order: random.Random) -> None:
        plan = read_plan(self.path)
        pending = sorted(set(range(plan.n_parts)) - committed(self.path).keys())
        assert set(pending) == {row // PART_ROWS for row in self.row_of} - self.committed
        order.shuffle(pending)
        for part in pending[: max(1, round(share * len(pending)))]:
            self._build(part)
            self.committed.add(part)

    def _build(self, part: int) -> None:
        plan = read_plan(self.path)
        rows, dropped = plan.part_range(part), dropped_ids(self.path)
        generation = plan.generation_of(part)
        table = read_tracks(self.path, generation).slice(rows.start - generation.rows.start, len(rows))
        assert table.column("id").to_pylist() == [self.row_of[row] for row in rows]
        arrays = {name: np.stack([features(row)[name] for row in rows]) for name in features(0)}
        outcomes = []
        for i, row in enumerate(rows):
            hidden = self.row_of[row] in dropped
            if hidden or fails(self.row_of[row], self._attempt(row)):
                for spec in track_arrays(RECIPE):
                    arrays[spec.name][i] = FAILED if spec.name == "status" else spec.fill
                reason = "DROPPED" if hidden else "EMPTY"
                outcomes.append({"row": row, "status": FAILED, "reason": reason, "flags": 0})
            else:
                outcomes.append({"row": row, "status": OK, "flags": int(Flag.SHORT)})
        commit_part(self.path, part, arrays, pa.Table.from_pylist(outcomes, schema=OUTCOME_SCHEMA))

    @rule()
    def retry(self) -> None:
        failed = [
            name
            for name, row in self._newest().items()
            if row // PART_ROWS in self.committed and not self._ok(row) and name not in self.down
        ]
        if failed and len(self.row_of) < 60:
            append_generation(self.path, read_plan(self.path), "retry", self._table(failed))
            self._plan_rows(failed)

    @rule(which=st.randoms(use_true_random=False))
    def damage_and_repair(self, which: random.Random) -> None:
        if not self.committed:
            return
        part = which.choice(sorted(self.committed))
        file = self.path / "rows" / f"{part}.parquet"
        data = bytearray(file.read_bytes())
        data[which.randrange(len(data))] ^= 1 << which.randrange(8)
        file.write_bytes(data)
        damages = verify(self.path, full=True)
        assert [damage.part for damage in damages] == [part]
        assert quarantine(self.path, damages) == []
        self.committed.discard(part)

    @rule(which=st.randoms(use_true_random=False))
    def drop_one(self, which: random.Random) -> None:
        name = which.choice(self.names)
        assert drop(self.path, [name], planned=self.names) == ([] if name in self.down else [name])
        self.down.add(name)

    @rule()
    def compact(self) -> None:
        compact(self.path)
        assert compact(self.path) == 0

    @rule()
    def finish(self) -> None:
        roll_forward(self.path)

    @invariant()
    def agrees(self) -> None:
        assert verify(self.path, full=True) == []
        with FeatureStore.open(self.path) as store:
            expected = {row for row in self.row_of if self._ok(row) and self.row_of[row] not in self.down}
            assert set(store.ok_rows.tolist()) == expected
            for row in list(expected)[:3]:
                np.testing.assert_array_equal(store.read("mel", [row])[0], features(row)["mel"])
            counts = store.counts()
        newest = self._newest()
        assert counts.planned == len(self.names)
        assert counts.ok == sum(row in expected for row in newest.values())
        assert counts.pending == sum(
            row // PART_ROWS not in self.committed and name not in self.down for name, row in newest.items()
        )


def run_sequences(n: int, *, seed: int, steps: int = 12) -> int:
    """Run `n` random sequences; raise with a shrunk sequence if store and model disagree."""
    options = settings(
        max_examples=n,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(_seeded(seed), settings=options)
    return n


def _seeded(number: int) -> type[StoreMachine]:
    return seed(number)(type("SeededMachine", (StoreMachine,), {}))
