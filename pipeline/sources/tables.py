"""Rows of a table (CSV, TSV, JSON Lines, Parquet), each with its file and line, and cells of checked types.

An invalid line, a missing column or a cell of the wrong type raises :class:`~mgc.cache.errors.ManifestError` with the
file, the line, the column and the nearest known name. Only a given genre delimiter splits a cell, as separators may be
part of genre names.
"""

from __future__ import annotations

import csv
import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ...cache.errors import ManifestError
from ...cache.messages import nearest
from .names import clean_name

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")
SEPARATORS = (",", ";", "|", "，", "；", "、", "｜")
MAX_CELL_CHARS = 1 << 24

_BREAKS = "\0\n\r\x1c\x1d\x1e\x1f\x85\u2028\u2029"
_LIST_TEXT = re.compile(
    r"""\s*(?:[\w.]*\()?[\[({]\s*(?:['"].*[\])}]|[\])}])\)*\s*|\s*\(.*[,;|].*\)\s*"""
    r"""|\s*(?:[bu]|np\.\w+\()['"].*['"]\)?\s*""",
    re.DOTALL,
)
"""Python's text of a list, tuple or set, and of numpy's and pandas' forms: ``('rock', 'pop')``, ``array(['rock'])``."""

_QUOTED_NAME = re.compile(r"""(["']).*\1|[“„«].*[”“»]|‘.*’""", re.DOTALL)
_QUOTED_CELL = re.compile(r'"((?:[^"]|"")*)"', re.DOTALL)
_BLANK_BEFORE_QUOTE = re.compile(' +"')


@dataclass(frozen=True, slots=True)
class Row:
    """Cells of one row by column name. `location` reads ``file.csv, line 3``."""

    location: str
    cells: Mapping[str, object]

    def text(self, column: str) -> str | None:
        """Return the cell's text without surrounding white space; None if it is absent, null or empty."""
        value = self.verbatim(column)
        return (value.strip() or None) if value is not None else None

    def required_text(self, column: str) -> str:
        """Return the cell unchanged, as ids and file names may start with a space; refuse a blank cell."""
        value = self.verbatim(column)
        if value is None or not value.strip():
            raise ManifestError(f"{self.location}: column {column!r} is empty, and every row needs it")
        return value

    def names(self, column: str, delimiter: str | None) -> tuple[str, ...]:
        """Return the names in a cell, a list or text that `delimiter` splits: in order, without duplicates, in NFC."""
        value = self.cells.get(column)
        parts = self._split(column, value, delimiter) if isinstance(value, str) else self._list(column, value)
        return distinct_names(parts)

    def one_or_more(self, column: str, delimiter: str | None) -> tuple[str, ...]:
        """As :meth:`names`, but text without a given `delimiter` is one name: "Earth, Wind & Fire" is one artist."""
        value = self.cells.get(column)
        if isinstance(value, str) and delimiter is None:
            if _LIST_TEXT.fullmatch(value) and ("'" in value or '"' in value):
                raise self._written_list(column, value)
            return distinct_names([self._encodable(column, value)])
        return self.names(column, delimiter)

    def verbatim(self, column: str) -> str | None:
        """Return the cell unchanged (lyrics); only absent and null become None."""
        value = self.cells.get(column)
        if value is not None and not isinstance(value, str):
            kind = type(value).__name__
            raise ManifestError(f"{self.location}: column {column!r} must hold text, not {kind} ({_shorten(value)})")
        return None if value is None else self._encodable(column, value)

    def _encodable(self, column: str, value: str) -> str:
        if value.isascii():
            return value
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ManifestError(f"{self.location}: column {column!r} holds half a surrogate pair: {value!a}") from error
        return value

    def _list(self, column: str, value: object) -> list[str]:
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise ManifestError(f"{self.location}: column {column!r} must hold a list of names, not {_shorten(value)}")
        return [self._encodable(column, name) for name in value]

    def _split(self, column: str, value: str, delimiter: str | None) -> list[str]:
        value = self._encodable(column, value)
        if value.lstrip().startswith(("[", "{")) or _LIST_TEXT.fullmatch(value):
            raise self._written_list(column, value)
        names = value.split(delimiter) if delimiter else [value]
        if quoted := next((name for name in (value, *names) if _QUOTED_NAME.fullmatch(name.strip())), None):
            raise ManifestError(
                f"{self.location}: column {column!r} holds quotation marks around names ({_shorten(quoted)}). Remove "
                'them. In CSV only " quotes, and it stands around the whole cell.'
            )
        for mark in (*(() if delimiter else SEPARATORS), *_BREAKS):
            if any(mark in name.strip() for name in names):
                raise ManifestError(
                    f"{self.location}: column {column!r} holds {_shorten(value)}; {mark!r} may separate names or "
                    f"belong to one. Set --genre-delimiter {mark!r}, or give lists in JSON Lines or Parquet"
                )
        return names

    def _written_list(self, column: str, value: str) -> ManifestError:
        return ManifestError(
            f"{self.location}: column {column!r} holds a list written as text ({_shorten(value)}); "
            "write real lists in JSON Lines or Parquet, or separate the names and give --genre-delimiter"
        )


@dataclass(frozen=True)
class ParquetRows:
    """Yield the rows of a Parquet file, batch by batch."""

    path: Path
    columns: tuple[str, ...]
    n_rows: int

    def __len__(self) -> int:
        return self.n_rows

    def __iter__(self) -> Iterator[Row]:
        with _parquet(self.path) as file:
            batches = file.iter_batches(columns=list(self.columns))
            cells = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
            for number, row in enumerate(cells, start=1):
                yield Row(f"{self.path}, row {number}", row)


@dataclass(frozen=True)
class Table:
    """Rows of one file, and the columns that the file declares (for JSON Lines: every key met).

    `rows` can be iterated repeatedly; rows of Parquet are read again each time, so that a table of millions
    is never completely in memory.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[Row] | ParquetRows = field(repr=False)

    def require(self, columns: Sequence[str]) -> None:
        """Refuse the table unless it has every one of `columns`."""
        for column in columns:
            if column not in self.columns:
                have = ", ".join(map(repr, self.columns)) or "none"
                raise ManifestError(
                    f"{self.path}: there is no column {column!r}; columns found: {have}"
                    f"{_nearest(column, self.columns, 0.5)}. Rename the column."
                )

    def refuse_near_misses(self, names: Iterable[str]) -> None:
        """Refuse an unknown column that is similar to an absent one of `names` ("genre"), as it would be ignored."""
        absent = [name for name in names if name not in self.columns]
        for column in self.columns:
            hint = _nearest(column, absent, 0.85)
            if hint and column not in names:
                raise ManifestError(f"{self.path}: unknown column {column!r}{hint}. Rename or remove it.")


def read_table(path: Path, wanted: Sequence[str]) -> Table:
    """Read a table by its suffix; see :data:`TABLE_SUFFIXES`. Of Parquet only the columns `wanted` are read.

    Raises
    ------
    ManifestError
        If the file is not a valid table, or one of its lines is invalid.
    """
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return _read_json_lines(path)
    if suffix in (".parquet", ".pq"):
        return _read_parquet(path, wanted)
    if suffix == ".tsv":
        return _read_tab_separated(path)
    if suffix == ".csv":
        header = next(_lines(path), (1, ""))[1]
        return _read_tab_separated(path) if "\t" in header else read_quoted(path, ";" if "," not in header else ",")
    raise ManifestError(
        f"{path}: {suffix or 'no suffix'} names no table that is read here ({', '.join(TABLE_SUFFIXES)})"
    )


def _read_tab_separated(path: Path) -> Table:
    """Read tab-separated lines, from a spreadsheet or not: a cell in quotation marks is read without them.

    Only where a line has too few or too many cells may a quoted cell hold tabs and line ends.
    """
    try:
        return _with_header(path, ((number, list(map(unquote, cells))) for number, cells in tab_separated(path)))
    except ManifestError as error:
        try:
            return read_quoted(path, "\t")
        except ManifestError:
            raise error from None


def unquote(cell: str) -> str:
    """Return the content of a quoted cell, with doubled quotation marks undone; else the cell."""
    quoted = _QUOTED_CELL.fullmatch(cell)
    return cell if quoted is None else quoted[1].replace('""', '"')


def read_unquoted(path: Path) -> Table:
    """Read tab-separated lines with a header, in which a quotation mark is a character like any other."""
    return _with_header(path, tab_separated(path))


def read_quoted(path: Path, delimiter: str) -> Table:
    """Read comma- (or otherwise) separated values after RFC 4180: quoted cells may hold delimiters and newlines."""
    return _with_header(path, quoted_records(path, delimiter))


def tab_separated(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of every line that is not empty, with any number of cells."""
    return ((number, line.split("\t")) for number, line in _lines(path) if line)


def quoted_records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of every record of :func:`read_quoted`, header included."""
    lines: list[str] = []  # of the current record

    def remembered() -> Iterator[str]:
        for _, line in _lines(path):
            lines.append(f"{line}\n")
            yield lines[-1]

    reader = csv.reader(remembered(), delimiter=delimiter, strict=True)
    first_line = 1
    limit = csv.field_size_limit(MAX_CELL_CHARS)
    try:
        for cells in reader:
            if any(map(_BLANK_BEFORE_QUOTE.match, cells)):
                cells = _without_blanks(cells, lines, delimiter)
            lines.clear()
            if cells:
                yield first_line, cells
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{path}, line {first_line}: broken record: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _without_blanks(cells: list[str], lines: Sequence[str], delimiter: str) -> list[str]:
    """Parse a record again, in which blanks may precede an opening quotation mark: ``1, "rock,pop"``."""
    again = next(csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True))
    if len(again) != len(cells):
        return again
    pairs = zip(cells, again, strict=True)
    return [new if _BLANK_BEFORE_QUOTE.match(old) else old for old, new in pairs]


def distinct_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names as :func:`~mgc.pipeline.sources.names.clean_name` has them, each once, in order of appearance."""
    return _distinct(tuple(names))


@functools.lru_cache(maxsize=1 << 16)  # tracks share the tuple: in a large collection each has few genres of its own
def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, map(clean_name, names))))


def _with_header(path: Path, records: Iterator[tuple[int, list[str]]]) -> Table:
    number, header = next(records, (1, []))
    columns = tuple(name.strip() for name in header)
    if not any(columns):
        raise ManifestError(f"{path}: no header; the first line must name the columns")
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise ManifestError(f"{path}, line {number}: the header names {', '.join(map(repr, repeated))} more than once")
    return Table(path, columns, list(rows_of(path, columns, records)))


def rows_of(path: Path, columns: Sequence[str], records: Iterable[tuple[int, list[str]]]) -> Iterator[Row]:
    """Name the cells of records by their columns; a record of another length is refused."""
    for number, cells in records:
        location = f"{path}, line {number}"
        if len(cells) != len(columns):
            raise ManifestError(f"{location}: {len(cells)} cells where the header has {len(columns)} columns")
        yield Row(location, {name: cell or None for name, cell in zip(columns, cells, strict=True)})


def _read_json_lines(path: Path) -> Table:
    rows = []
    columns: dict[str, None] = {}
    for number, line in _lines(path):
        if not line.strip():
            continue
        location = f"{path}, line {number}"
        try:
            cells = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{location}: broken JSON: {error}") from error
        if not isinstance(cells, dict):
            raise ManifestError(f"{location}: a JSON object was expected, not {_shorten(cells)}")
        columns |= dict.fromkeys(cells)
        rows.append(Row(location, cells))
    return Table(path, tuple(columns), rows)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    cells = dict(pairs)
    if len(cells) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return cells


def _read_parquet(path: Path, wanted: Sequence[str]) -> Table:
    with _parquet(path) as file:
        columns, n_rows = tuple(file.schema_arrow.names), file.metadata.num_rows
    return Table(path, columns, ParquetRows(path, tuple(c for c in columns if c in wanted), n_rows))


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError as error:
        raise ManifestError(f"{path}: no such file") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ManifestError(f"{path}: not readable as Parquet: {error}") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Yield numbered lines of a UTF-8 file, ended by \n or \r\n only, as other line breaks may be part of titles."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                yield number, line.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        location = f"{path}, line {number}, byte {error.start}"
        raise ManifestError(f"{location}: not UTF-8 ({error.reason}). Save the table as UTF-8.") from error
    except OSError as error:
        raise ManifestError(f"{path}: not readable: {error.strerror}") from error


def _nearest(name: str, candidates: Iterable[str], cutoff: float) -> str:
    near = nearest(name, candidates, cutoff)
    return "" if near is None else f"; nearest known name: {near!r}"


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
