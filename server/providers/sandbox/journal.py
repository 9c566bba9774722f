"""The carrier's memory on disk: an append-only file of JSON lines, each a value put under a key or taken away.

A carrier that forgot accepted messages would make every look for a lost one end in a second text. Lines are flushed,
not synced: they outlive the process, which is all a sandbox needs.
"""

import json
from pathlib import Path
from typing import IO, Any

import structlog

log = structlog.get_logger(__name__)

Tables = dict[str, dict[str, Any]]


class Journal:
    """Open on one file; `path` None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def open(self) -> Tables:
        """Replay the file, write it anew without what is outdated, and answer what it holds: table, key, value."""
        if self._path is None:
            return {}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        tables = _replay(self._path) if self._path.exists() else {}
        fresh = self._path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            file.writelines(
                _line(table, key, value) for table, values in tables.items() for key, value in values.items()
            )
        fresh.replace(self._path)
        self._file = self._path.open("a", encoding="utf-8")
        return tables

    def put(self, table: str, key: str, value: object) -> None:
        """Remember a value that JSON can hold, in place of the one under that key."""
        if self._file is not None:
            self._file.write(_line(table, key, value))
            self._file.flush()

    def drop(self, table: str, key: str) -> None:
        """Forget what is under that key."""
        self.put(table, key, None)

    def clear(self) -> None:
        """Forget everything."""
        if self._file is not None:
            self._file.truncate(0)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _line(table: str, key: str, value: object) -> str:
    return json.dumps([table, key, value], separators=(",", ":")) + "\n"


def _replay(path: Path) -> Tables:
    tables: Tables = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):
                # The process was killed in the middle of its last line, before it answered for it.
                log.warning("sandbox.journal.torn_line")
                break
            table, key, value = json.loads(line)
            values = tables.setdefault(table, {})
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value
    return tables
