"""Check the order of fsync, publish and commit in the system calls, which determines the state after a power failure.

    python -m benchmarks.campaigns.fsync_order > benchmarks/campaigns/fsync_order.md        (needs strace)

Writes a small store under strace and checks, for each part and each later generation of the plan:

1. every object and its folder was fsynced before the folder was renamed to its staged name;
2. the staged name was fsynced (its parent folder) before the record was linked;
3. the bytes of the record were fsynced before it was linked, and the folder of records right after;
4. objects were linked to their keys after that, and the folders of the keys were fsynced.

This does not show that the disk keeps data that it reports as written.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import ROOT, print_heading

SCRIPT = """
import sys
from pathlib import Path
from benchmarks.worlds.small_store import append_late_track, create, fill
path = create(Path(sys.argv[1]))
fill(path)
append_late_track(path)
fill(path, [3])
"""
CALLS = "fsync,fdatasync,link,linkat,rename,renameat,renameat2"
_FSYNC = re.compile(r"f(?:data)?sync\(\d+<([^>]+)>\) += 0")
_TWO = re.compile(r'(link|rename)(?:at2?)?\((?:AT_FDCWD[^,]*, )?"([^"]+)", (?:AT_FDCWD[^,]*, )?"([^"]+)".* = 0')

Event = tuple[str, str, str]


def traced(store: Path) -> list[Event]:
    """Return (call, path, second path) of every successful call, in order."""
    log = store.parent / "strace.log"
    strace = ["strace", "-f", "-y", "-s", "4096", "-o", log, "-e", f"trace={CALLS}"]
    subprocess.run([*strace, sys.executable, "-c", SCRIPT, store], check=True, cwd=ROOT)
    events: list[Event] = []
    for line in log.read_text().splitlines():
        if match := _FSYNC.search(line):
            events.append(("fsync", match[1], ""))
        elif match := _TWO.search(line):
            events.append((match[1], match[2], match[3]))
    return events


def check(store: Path, events: list[Event], record: str) -> list[str]:
    """Assert the order for one record; return its steps as text."""
    renames = [(i, Path(source), Path(to)) for i, (call, source, to) in enumerate(events) if call == "rename"]
    links = [(i, Path(source), Path(to)) for i, (call, source, to) in enumerate(events) if call == "link"]
    commit, draft = next((i, str(source)) for i, source, to in links if to == store / record)
    label = record.removesuffix(".json").replace("/", "+")
    staged, building, folder = max(
        rename for rename in renames if rename[0] < commit and rename[2].name.startswith(f"{label}~")
    )
    links = [link for link in links if link[0] != commit and link[1].is_relative_to(folder)]
    assert links, record
    fsynced = {path for call, path, _ in events[:staged] if call == "fsync"}
    for _, source, _ in links:
        inside = source.relative_to(folder)
        assert str(building / inside) in fsynced, f"{inside} was not fsynced before it was staged"
        for parent in list(inside.parents):
            assert str(building / parent) in fsynced, f"folder {parent} was not fsynced before it was staged"
    first_after = next(i for i, event in enumerate(events) if i > staged and event == ("fsync", str(folder.parent), ""))
    assert staged < first_after < commit, "the staged name was not fsynced before the record"
    assert Path(draft).is_relative_to(folder), "the draft is not in the staged folder"
    draft = str(building / Path(draft).relative_to(folder))
    assert ("fsync", draft, "") in events[:staged], "the record's bytes were not fsynced before it was linked"
    sealed = next(
        i for i, event in enumerate(events) if i > commit and event == ("fsync", str((store / record).parent), "")
    )
    assert all(i > sealed for i, _, _ in links), "objects were linked before the record was durable"
    for i, _, to in links:
        later = [j for j, event in enumerate(events) if i < j and event == ("fsync", str(to.parent), "")]
        assert later, f"the folder of {to} was not fsynced"
    return [
        f"{len(fsynced)} fsyncs so far, including all {len(links)} objects, their folders and the record's draft",
        f"rename to `staging/{label}~<digest>`",
        "fsync of `staging/`",
        f"link to `{record}`: the commit",
        f"fsync of `{Path(record).parent}/`",
        f"{len(links)} links to keys, fsync of their folders",
        "removal of the staging",
    ]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mgc-") as scratch:
        store = Path(scratch).resolve() / "s.zarr"
        events = traced(store)
        records = [f"commits/{part}.json" for part in range(4)] + ["generations/1.json"]
        steps = [check(store, events, record) for record in records]
    print_heading("Order of system calls", __file__, ", which lists the checks.")
    print(
        f"{len(events)} calls traced; the order holds for {len(records)} records ({', '.join(records)}). "
        "Steps for the second record:\n"
    )
    for number, step in enumerate(steps[1], start=1):
        print(f"{number}. {step}")
    print("\nThis does not show that a disk keeps data that it reports as written. No real power cut was tested.")


if __name__ == "__main__":
    main()
