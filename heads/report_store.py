"""One self-contained HTML page about a feature store, finished or still growing: nothing is loaded from elsewhere.

The summary comes first; then what failed and why, and what was unusual.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..cache.durable import replace_file
from ..cache.errors import ConfigError
from ..cache.forms import is_store
from ..cache.info import describe
from ..cache.meanings import FLAG_MEANINGS, REASON_MEANINGS
from ..cache.schema import FAILED, Flag, Reason
from ..cache.store import FeatureStore
from .page import Json, bar, count, page, text

N_EXAMPLES = 3


def write_store_report(path: Path, out: Path | None = None) -> Path:
    """Write a store's report.

    Parameters
    ----------
    path : a feature store in either form, finished or growing.
    out : the page to write; default: beside the store, its name and ``.report.html``.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    ConfigError
        `out` is the store itself or lies in one.
    StoreNotFoundError, StoreFormatError, StoreCorruptError
    MissingExtraError
        matplotlib is not installed (extra ``report``).
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - a link to a store has its page beside the link
    out = path.with_name(f"{path.name}.report.html") if out is None else out
    _refuse_inside(out)
    with FeatureStore.open(path) as store:
        whole = render_store_report(store)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, whole.encode())
    return out


def _refuse_inside(out: Path) -> None:
    """A page in a store would be no part of it, and one in its place would destroy it."""
    target = out.resolve()
    for place in (target, *target.parents):
        if is_store(place):
            raise ConfigError(f"{out}: {place} is a feature store; write the page somewhere else, such as beside it")


def render_store_report(store: FeatureStore) -> str:
    """The page of a store."""
    info = describe(store)
    sections = [_summary(store.path.name, info), _failures_section(store, info), _flags_section(info)]
    return page(f"store {store.path.name}", "\n".join(part for part in sections if part))


def _summary(name: str, info: Json) -> str:
    planned, ok, failed, pending = (info[key] for key in ("planned", "ok", "failed", "pending"))
    told = [f"{name} has features of {ok} of {count(planned, 'planned track')}."]
    if pending:
        told.append(f"It is not finished: {pending} are not extracted yet, and this page tells what was there when "
                    "it was written.")  # fmt: skip
    told.append("No track failed." if not failed else f"{failed} failed; each has a reason, below.")
    tiles = [("planned", planned), ("ok", ok), ("failed", failed), ("pending", pending), ("bytes", info["bytes"])]
    shown = "".join(f"<div class=tile><b>{value}</b><span>{name}</span></div>" for name, value in tiles)
    return f"<p class=lead>{text(' '.join(told))}</p>\n<div class=tiles>{shown}</div>"


def _failures_section(store: FeatureStore, info: Json) -> str:
    """A row a reason, with some of its tracks."""
    if not info["failed"]:
        return ""
    failed = store.tracks.select(["id", "status", "reason", "detail"]).filter(pa.array(store.newest))
    failed = failed.filter(pc.equal(failed.column("status"), FAILED))
    rows = []
    for reason, n in info["reasons"].items():
        known = reason in Reason.__members__
        meaning, what_to_do = REASON_MEANINGS[Reason(reason)] if known else ("Of a later version of mgc.", "")
        some = failed.filter(pc.equal(failed.column("reason"), reason)).slice(0, N_EXAMPLES).to_pylist()
        rows.append(
            f"<tr><th scope=row>{text(reason)}</th><td>{n}</td><td>{text(meaning)}</td><td>{text(what_to_do)}</td>"
            f"<td>{'<br>'.join(_example(one) for one in some)}</td></tr>"
        )
    head = _head("reason", "tracks", "what happened", "what to do", "examples")
    return (
        f"<h2>Failures</h2>\n<p>All of them: <code>mgc store failures {text(store.path.name)}</code></p>\n"
        f"<div class=scroll><table>{head}<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _example(track: dict[str, Any]) -> str:
    detail = f": {track['detail']}" if track["detail"] else ""
    return text(f"{track['id']}{detail}")


def _flags_section(info: Json) -> str:
    if not info["flags"]:
        return "<h2>Flags</h2>\n<p>No track is unusual in any way that is looked for.</p>"
    rows = "".join(
        f"<tr><th scope=row>{name}</th><td>{n}</td><td>{bar(n / info['planned'])}</td>"
        f"<td>{text(FLAG_MEANINGS[Flag[name]])}</td></tr>"
        for name, n in sorted(info["flags"].items(), key=lambda item: -item[1])
    )
    head = _head("flag", "tracks", "share of planned tracks (0 to 1)", "meaning")
    return (
        "<h2>Flags</h2>\n<p>What was unusual about tracks, most of which have features all the same.</p>\n"
        f"<div class=scroll><table>{head}<tbody>{rows}</tbody></table></div>"
    )


def _head(*names: str) -> str:
    return "<thead><tr>" + "".join(f"<th scope=col>{text(name)}</th>" for name in names) + "</tr></thead>"
