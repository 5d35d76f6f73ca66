"""`enrichd run`: what it starts, what it makes of bad input, and how it refuses what cannot work."""

import os
import re
import signal
from pathlib import Path

import pytest
from PIL import Image
from pymongo import MongoClient

from daemon.embedded import EmbeddedServer, free_port, running
from tests.acceptance.conftest import daemon, enrichd

pytestmark = pytest.mark.acceptance

#: an enricher that needs no weights, so that these tests need none
LIGHT = ("--set", "enrichers.enabled=properties")


def _config(folder: Path) -> None:
    (folder / "photos").mkdir()
    (folder / "enrichd.toml").write_text(
        '[images]\nroots = ["photos"]\n[embedded]\ndata = "data"\n[enrichers]\nenabled = ["properties"]\n'
    )


def _bad_files(photos: Path) -> dict[str, str]:
    """Files that cannot be enriched, with the types of their errors."""
    Image.effect_noise((200, 200), 60).save(photos / "good.jpg")
    whole = (photos / "good.jpg").read_bytes()
    (photos / "text.jpg").write_text("This is no picture.")
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "page.pdf").write_bytes(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    (photos / "gone.jpg").write_bytes(whole)
    return {
        "text.jpg": "UnsupportedFormat",
        "empty.jpg": "UnknownFormat",
        "truncated.jpg": "CorruptImage",
        "page.pdf": "UnsupportedFormat",
        "gone.jpg": "SourceMissing",
    }


def test_bad_files_are_explained_and_the_others_go_on(tmp_path: Path) -> None:
    _config(tmp_path)
    expected = _bad_files(tmp_path / "photos")
    with daemon("--yes", cwd=tmp_path) as log:
        assert str(tmp_path / "data") in log.read_text()  # it says where its data is
        files = [str(file) for file in sorted((tmp_path / "photos").iterdir())]
        (tmp_path / "hidden").mkdir()
        os.rename(tmp_path / "photos" / "gone.jpg", tmp_path / "hidden" / "gone.jpg")
        os.symlink("/etc/hostname", tmp_path / "photos" / "gone.jpg")  # leads out of the root: refused at once
        assert "outside" in enrichd("add", str(tmp_path / "photos" / "gone.jpg"), cwd=tmp_path).err
        os.unlink(tmp_path / "photos" / "gone.jpg")
        files.remove(str(tmp_path / "photos" / "gone.jpg"))
        uri = running(tmp_path / "data")
        assert uri is not None
        client: MongoClient[dict[str, object]] = MongoClient(uri)
        client.enrichd.images.insert_one({"_id": "mine", "source": "gone.jpg", "note": "mine"})
        added = enrichd("add", *files, "--wait", "--timeout", "60", "--json", cwd=tmp_path)
        assert added.code == 1  # not all are complete
        assert added.json["states"] == {"complete": 1, "partial": 0, "failed": 0, "unreadable": 4}
        assert enrichd("wait", "mine", "--timeout", "60", cwd=tmp_path).code == 1
        failures = {f["source"]: f for f in enrichd("failures", "--json", cwd=tmp_path).json}
        assert {source: failure["type"] for source, failure in failures.items()} == expected
        assert all(failure["next_attempt_at"] is None for failure in failures.values())
        mine = client.enrichd.images.find_one({"_id": "mine"}, {"enrichments": 0, "enrichment": 0})
        assert mine == {"_id": "mine", "source": "gone.jpg", "note": "mine"}
        assert enrichd("verify", cwd=tmp_path).code == 0
    assert running(tmp_path / "data") is None  # the embedded server ended with it


def test_a_server_that_a_killed_daemon_left_ends_with_the_next_one(tmp_path: Path) -> None:
    _config(tmp_path)
    with pytest.raises(AssertionError), daemon("--yes", cwd=tmp_path) as log:
        killed = re.search(r"joined as \S+-(\d+)-", log.read_text())
        assert killed is not None
        os.kill(int(killed[1]), signal.SIGKILL)
    left = running(tmp_path / "data")
    assert left is not None
    with daemon(cwd=tmp_path):
        assert running(tmp_path / "data") == left
    assert running(tmp_path / "data") is None


def test_a_folder_that_is_not_there_stops_it(tmp_path: Path) -> None:
    assert "images.roots" in _refused("--root", str(tmp_path / "photos"), *LIGHT, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def _refused(*arguments: str, cwd: Path, **variables: str) -> str:
    """The one message of an `enrichd run` that must not start."""
    ran = enrichd("run", *arguments, cwd=cwd, variables=variables, timeout_s=60)
    assert ran.code == 1, ran.err
    assert ran.out == ""
    assert "Traceback" not in ran.err
    message = ran.err.strip().splitlines()
    assert len(message) == 1, ran.err
    assert message[0].startswith("enrichd: ")
    return message[0]


def test_a_missing_weight_stops_it(tmp_path: Path) -> None:
    message = _refused(
        *("--set", "enrichers.enabled=faces"),
        cwd=tmp_path,
        ENRICHD_MODELS__CACHE=str(tmp_path / "empty"),
        ENRICHD_MODELS__OFFLINE="true",
    )
    assert "centerface" in message
    assert "enrichd models pull" in message


def test_a_server_that_does_not_answer_stops_it(tmp_path: Path) -> None:
    port = free_port()
    uri = f"mongodb://127.0.0.1:{port}/"
    message = _refused("--uri", uri, "--set", "mongo.timeout_s=1", *LIGHT, cwd=tmp_path)
    assert str(port) in message
    assert "mongo.uri" in message


def test_a_server_without_a_replica_set_stops_it(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "data", options=("--standalone",))
    server.start()
    try:
        assert "rs.initiate()" in _refused("--uri", server.uri, *LIGHT, cwd=tmp_path)
    finally:
        server.stop()


def test_wrong_credentials_stop_it_and_are_not_shown(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "data", options=("--auth",))
    server.start()
    try:
        uri = server.uri.replace("://", "://ada:s3cret@")
        message = _refused("--uri", uri, "--set", "mongo.timeout_s=2", *LIGHT, cwd=tmp_path)
    finally:
        server.stop()
    assert "password" in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--set", "enrichers.enabled=objetcs"], "objects"),
        (["--set", "pipeline.device=cuda", *LIGHT], "cuda"),  # an error, not a slow run; there is no GPU in a test run
        (["--set", "enrichers.enabled=properties", "--set", "enrichers.properties.nothing=1"], "nothing"),
    ],
)
def test_a_wrong_setting_stops_it(tmp_path: Path, flags: list[str], words: str) -> None:
    if "pipeline.device=cuda" in flags and Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    assert words in _refused(*flags, cwd=tmp_path)
