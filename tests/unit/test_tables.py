"""Tables as a terminal and a pipe show them."""

import json
import sys
from datetime import UTC, datetime

import pytest

from daemon.cli.options import print_json, print_table
from daemon.plural import counted

COLUMNS = ["id", "source", "state", "enricher", "reason", "attempts", "next attempt"]
ROW = [
    "65f0c0ffee65f0c0ffee65f0",
    "2024/holidays/photo.jpg",
    "failed",
    None,
    "SourceMissing: it\nis gone " * 4,
    1,
    "none",
]


def test_a_pipe_gets_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Failures", COLUMNS, [ROW, ROW])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line == line.rstrip() for line in lines)
    assert str(ROW[0]) in lines[2] and str(ROW[1]) in lines[2] and lines[2].endswith("none")
    assert lines[1].index("source") == lines[2].index(str(ROW[1]))


@pytest.mark.parametrize("width", ["80", "250"])
def test_a_terminal_never_breaks_ids_and_sources(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(None, COLUMNS, [ROW])
    out = capsys.readouterr().out
    assert str(ROW[0]) in out and str(ROW[1]) in out
    assert len(out.splitlines()) == (2 if width == "250" else len(COLUMNS))


def test_a_table_without_rows_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(None, ["id", "name"], [])
    print_table(None, ["", ""], [])
    assert capsys.readouterr().out == "id  name\n\n"


def test_json_has_dates_as_iso_8601_with_their_zone(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    print_json({"at": at, "naive": at.replace(tzinfo=None)})
    assert json.loads(capsys.readouterr().out) == {
        "at": "2024-05-06T07:08:09+00:00",
        "naive": "2024-05-06T07:08:09+00:00",
    }


def test_one_is_not_many() -> None:
    assert [counted(number, "document") for number in (0, 1, 2)] == ["0 documents", "1 document", "2 documents"]
    assert counted(2, "identity", "identities") == "2 identities"
