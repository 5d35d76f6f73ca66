"""The catalogue: built-in entries, users' entries, and the hashes that fingerprints are made of."""

import json
from pathlib import Path

import pytest

from enrichers.catalogue import PROVIDERS, Catalogue, hash_path
from enrichers.errors import ModelMissing, ModelUnknown, SettingInvalid

FILE = {"task": "objects", "runtime": "onnx", "provider": "file", "path": "/models/mine.onnx"}


def test_every_default_model_is_pinned_and_has_a_licence() -> None:
    defaults = [entry for entry in Catalogue.load() if entry.default]
    assert len(defaults) >= 12
    for entry in defaults:
        assert entry.sha256 is not None, entry.name
        assert len(entry.sha256) == 64, entry.name
        assert entry.licence != "unknown", entry.name
        assert not entry.restricted, entry.name
        assert entry.provider in ("package", "installed"), f"{entry.name} would need more than the package index"


def test_every_built_in_entry_parses_and_its_providers_are_known() -> None:
    for entry in Catalogue.load():
        assert entry.licence != "unknown", entry.name
        assert all(source.provider in PROVIDERS for source in entry.sources), entry.name


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({**FILE, "runtim": "onnx"}, "did you mean 'runtime'"),
        ({**FILE, "runtime": "onx"}, "did you mean 'onnx'"),
        ({**FILE, "provider": "pakage"}, "did you mean 'package'"),
        ({"task": "objects", "provider": "package", "package": "p", "version": "1"}, "needs `file`"),  # no file named
        ({"task": "objects", "provider": "file"}, "needs `path`"),
        ({"provider": "file", "path": "x"}, "`task` is missing"),
        ({"task": "objects"}, "`provider` is missing"),  # neither a source nor parts
        ({**FILE, "also": [{"provider": "url"}]}, "needs `url`"),  # a further source is checked like the first
    ],
)
def test_a_wrong_entry_says_what_is_wrong(table: dict[str, object], message: str) -> None:
    with pytest.raises(SettingInvalid, match=message):
        Catalogue.load({"mine": table})


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ModelUnknown, match="centerface"):
        Catalogue.load().entry("centreface")


def test_an_entry_cannot_have_an_unknown_part() -> None:
    with pytest.raises(ModelUnknown):
        Catalogue.load({"mine": {**FILE, "parts": {"labels": "nowhere"}}})


def test_weights_name_the_parts_after_the_main_file() -> None:
    names = [w.name for w in Catalogue.load().weights("efficientnet_lite3")]
    assert names == ["efficientnet_lite3", "efficientnet_labels"]


def test_a_users_entry_wins_over_the_built_in_one() -> None:
    assert Catalogue.load({"centerface": FILE}).entry("centerface").sources[0].path == "/models/mine.onnx"


def test_an_unpinned_local_file_is_identified_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(b"one")
    catalogue = Catalogue.load({"mine": {**FILE, "path": str(path)}})
    before = catalogue.weights("mine")[0].sha256
    path.write_bytes(b"two")
    assert catalogue.weights("mine")[0].sha256 != before


def test_an_unpinned_model_has_no_weights_before_its_first_pull(tmp_path: Path) -> None:
    entry = {"task": "objects", "provider": "url", "url": "https://example.org/mine.onnx"}
    catalogue = Catalogue.load({"mine": entry}, cache=tmp_path)
    with pytest.raises(ModelMissing, match="enrichd models pull mine"):
        catalogue.weights("mine")
    (tmp_path / "pins.json").write_text(json.dumps({"mine": "ab" * 32}))
    assert catalogue.weights("mine")[0].sha256 == "ab" * 32


def test_the_hash_of_a_folder_depends_on_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    first = hash_path(tmp_path)
    (tmp_path / "variables" / "v").write_bytes(b"1")
    second = hash_path(tmp_path)
    (tmp_path / "variables" / "v").rename(tmp_path / "variables" / "w")
    assert len({first, second, hash_path(tmp_path)}) == 3


def test_every_model_stands_in_the_documentation_with_its_hash() -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    for entry in Catalogue.load():
        row = next((line for line in text.splitlines() if line.startswith(f"| `{entry.name}`")), None)
        assert row is not None, f"{entry.name} is missing in docs/models.md"
        assert entry.sha256 is None or entry.sha256 in row, entry.name
        assert entry.licence in row, entry.name


def test_every_setting_of_objects_stands_in_the_documentation() -> None:
    from enrichers.objects import Objects

    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    section = text[text.index("## objects") : text.index("\n## ", text.index("## objects") + 1)]
    for name, value in Objects.defaults.items():
        shown = f"`{value}`" if isinstance(value, str) else str(value)
        assert f"| `{name}` | {shown} |" in section, name
