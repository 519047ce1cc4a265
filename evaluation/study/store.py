"""Answers on disk: one JSON object a line, only ever appended to, and on the disk before anyone is told so."""

import fcntl
import json
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from assd.errors import InputError
from evaluation.study.key import Key, Refused


class Answers:
    """What a server has collected. One lock guards it: threads come in one after another.

    Two kinds of lines: `{"rater": ..., "sheet": ...}` when a sheet is handed out, and an answer as `Key.check` returns
    it. A server that was killed may leave half a line: nobody was told that it was kept, and readers pass over it.
    """

    def __init__(self, path: Path, key: Key) -> None:
        self.key = key
        self.lock = threading.Lock()
        self.sheets: dict[str, int] = {}  # of raters
        self.answered: set[tuple[str, str]] = set()  # (rater, trial)
        self.file = path.open("ab", buffering=0)
        self.take_hold(path)
        self.whole = not path.stat().st_size or path.read_bytes().endswith(b"\n")  # the last line is
        sync_folder(path.parent)
        for record in read_lines(path):
            self.note(record)

    def take_hold(self, path: Path) -> None:
        """One server at a time writes a file."""
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another server collects into {path}: stop it, or give another --answers") from None

    def note(self, record: dict[str, Any]) -> None:
        """Remembers a line."""
        self.sheets[record["rater"]] = record["sheet"]
        if "trial" in record:
            self.answered.add((record["rater"], record["trial"]))

    def keep(self, record: dict[str, Any]) -> None:
        """Appends a line and returns when it is on the disk."""
        self.append(json.dumps(record).encode() + b"\n")
        self.note(record)

    def append(self, line: bytes) -> None:
        """Writes and waits for the disk. After half a line (a killed server, a full disk), it begins a new one."""
        if not self.whole:
            self.file.write(b"\n")
        self.whole = False
        if self.file.write(line) != len(line):
            raise OSError(f"{self.file.name}: the disk took half a line")
        self.whole = True
        os.fsync(self.file.fileno())

    def assign(self, rater: str) -> int:
        """The rater's sheet: the one he has, or the one that his number says, or the one that fewest have finished.

        Rater 1 has sheet 0, and so on around. Of sheets finished equally often, the one given out least often comes.
        """
        with self.lock:
            if rater not in self.sheets:
                self.keep({"rater": rater, "sheet": self.next_sheet(rater)})
            return self.sheets[rater]

    def next_sheet(self, rater: str) -> int:
        """See `assign`."""
        count = len(self.key.sheets)
        if rater.isascii() and rater.isdigit() and len(rater) < 10:
            return (max(int(rater), 1) - 1) % count
        finished = Counter(self.sheets[rater] for rater in self.finished())
        given = Counter(self.sheets.values())
        return min(range(count), key=lambda sheet: (finished[sheet], given[sheet], sheet))

    def finished(self) -> list[str]:
        """Raters who answered their whole sheet."""
        answers = Counter(rater for rater, _ in self.answered)
        return [rater for rater, count in answers.items() if count == len(self.key.sheets[self.sheets[rater]])]

    def add(self, answer: Any) -> None:
        """Keeps an answer. Raises Refused unless it answers what was served, for the first time."""
        record = self.key.check(answer)
        rater, trial, sheet = record["rater"], record["trial"], record["sheet"]
        with self.lock:
            if self.sheets.get(rater, sheet) != sheet:
                raise Refused(403, f"rater {rater} answers sheet {self.sheets[rater]}, not {sheet}")
            if (rater, trial) in self.answered:
                raise Refused(409, f"rater {rater} has answered trial {trial} before: the first answer counts")
            self.keep(record)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of answers; what a killed server left half is passed over."""
    records = []
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "rater" in record and "sheet" in record:
            records.append(record)
    return records


def sync_folder(folder: Path) -> None:
    """Makes sure that the name of a new file is on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
