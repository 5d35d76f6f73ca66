"""What README.md and the cookbook tell users to type works, on the demo's data."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import REPOSITORY, Demo, Mongosh, enrichd

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

README = REPOSITORY / "README.md"
COOKBOOK = REPOSITORY / "docs" / "cookbook.md"


def _queries(file: Path) -> list[tuple[str, str]]:
    """The mongosh expressions of a page, each with the comment above it."""
    blocks = re.findall(r"^```js\n(.*?)^```", file.read_text(), re.MULTILINE | re.DOTALL)
    parts = [part for block in blocks for part in block.strip().split("\n\n")]
    return [(match[1], match[2]) for part in parts if (match := re.fullmatch(r"// (.+?)\n(.*)", part, re.DOTALL))]


def _sources(answer: Any) -> set[str]:
    return {document["source"] for document in answer}


#: what each of the README's queries must answer, by its comment
ANSWERS: dict[str, Callable[[Any], bool]] = {
    "name a person: the one on this photo": lambda answer: answer["matchedCount"] == 1,
    "photos with a cat": lambda answer: _sources(answer) == {"chelsea.png"},
    "photos of somebody with a tie": lambda answer: {s.partition("_")[0] for s in _sources(answer)} == {"grace"},
    "photos of Grace Hopper": lambda answer: len(_sources(answer)) == 6,
    "photos with exactly one face, and that one beyond doubt": lambda answer: len(_sources(answer)) >= 6,
    "photos whose text holds a word": lambda answer: _sources(answer) == {"page.png"},
    "photos with much orange in them": lambda answer: "astronaut_crop.jpg" in _sources(answer),
    "the largest photos": lambda answer: len(answer) == 3,
    "how often each object is seen": lambda answer: {"cat", "person"} <= {entry["_id"] for entry in answer},
    "the people, those with most photos first": lambda answer: [p["face_count"] for p in answer] == [6, 6],
    "what is not complete, and why": lambda answer: answer == [],
    "which models answered, and how long they took": lambda answer: (
        {"faces", "objects", "text"} <= {entry["_id"] for entry in answer if entry["model"] and entry["ms"] > 0}
    ),
}


def test_the_readme_has_ten_queries_and_each_is_checked() -> None:
    titles = [title for title, _ in _queries(README)]
    assert len(titles) >= 10
    assert set(titles) == ANSWERS.keys()


def test_the_readmes_queries_answer(demo: Demo, demo_uri: str, mongosh: Mongosh) -> None:
    queries = _queries(README)
    first, *others = [expression for _, expression in queries]
    (named,) = mongosh.evaluate(demo_uri, "demo", [first])
    assert ANSWERS[queries[0][0]](named)
    mongosh.evaluate(demo_uri, "demo", [_SHOWN])
    answers = mongosh.evaluate(demo_uri, "demo", others)
    wrong = {
        title: answer for (title, _), answer in zip(queries[1:], answers, strict=True) if not ANSWERS[title](answer)
    }
    assert not wrong


#: waits until the daemon shows a name that was given in mongosh on the images
_SHOWN = """(() => { for (let i = 0; i < 300; i++) {
    if (db.images.countDocuments({"enrichments.faces.items.name": "Grace Hopper"}) == 6) return true; sleep(100) }
    return false })()"""


def test_a_name_given_in_mongosh_is_on_the_images_within_seconds(demo_uri: str, mongosh: Mongosh) -> None:
    naming = next(expression for title, expression in _queries(README) if title.startswith("name a person"))
    assert mongosh.evaluate(demo_uri, "demo", [naming, _SHOWN])[1] is True


def test_the_cookbooks_queries_run(demo_uri: str, mongosh: Mongosh) -> None:
    queries = _queries(COOKBOOK)
    assert len(mongosh.evaluate(demo_uri, "demo", [expression for _, expression in queries])) == len(queries)


def test_the_readmes_app_inserts_and_gets_its_answer(demo: Demo, demo_uri: str, tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    (uri,) = re.findall(r'MongoClient\("([^"]+)"\)', code)
    script = tmp_path / "app.py"
    script.write_text(code.replace(uri, demo_uri))
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "complete" in result.stdout
    assert "cat" in result.stdout


def test_a_demo_whose_server_runs_is_not_overwritten(demo: Demo, demo_uri: str) -> None:
    ran = enrichd("demo", "--folder", str(demo.folder), cwd=REPOSITORY)
    assert ran.code == 1
    assert "still runs" in ran.err
    assert (demo.folder / "photos" / "chelsea.png").exists()


def test_the_readmes_commands_exist() -> None:
    shell = "\n".join(re.findall(r"^```sh\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL))
    commands = {
        *re.findall(r"^enrichd ([a-z]+)", shell, re.MULTILINE),
        *re.findall(r"`enrichd ([a-z]+)", README.read_text()),
    }
    assert commands
    for command in sorted(commands):
        assert enrichd(command, "--help", cwd=REPOSITORY).code == 0, command
