"""The demo finds what is on its photos, and says so."""

from pathlib import Path

import pytest

from tests.acceptance.conftest import REPOSITORY, Demo, enrichd

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]


def _images(demo: Demo) -> dict[str, dict[str, object]]:
    return {image["source"]: image for image in demo.report["images"]}


def test_every_document_is_complete(demo: Demo) -> None:
    assert demo.ran.code == 0, demo.ran.err
    report = demo.report
    assert report["complete"] == report["documents"] == len(report["images"])
    assert {image["state"] for image in report["images"]} == {"complete"}
    assert report["latency_ms"].keys() >= {"p50", "p95"}
    assert report["seconds"] > 0


@pytest.mark.parametrize(("source", "label"), [("chelsea.png", "cat"), ("coffee.png", "cup")])
def test_it_finds_the_objects(demo: Demo, source: str, label: str) -> None:
    assert label in _images(demo)[source]["objects"]


def test_it_finds_two_people_with_all_their_copies(demo: Demo) -> None:
    people = {tuple(sorted(identity["images"])) for identity in demo.report["identities"]}
    sources = sorted(_images(demo))
    assert people == {
        tuple(source for source in sources if source.startswith("astronaut")),
        tuple(source for source in sources if source.startswith("grace_hopper")),
    }


def test_it_reads_the_printed_page(demo: Demo) -> None:
    text = str(_images(demo)["page.png"]["text"])
    for word in ("Region", "segmentation", "markers", "coins", "background", "histogram"):
        assert word in text


def test_a_folder_that_is_not_the_demos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    ran = enrichd("demo", "--folder", str(tmp_path), cwd=REPOSITORY)
    assert ran.code == 1
    assert "is not empty" in ran.err
    assert (tmp_path / "mine.txt").read_text() == "mine"
