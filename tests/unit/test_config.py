"""The configuration: where a value may come from, which one wins, and what a wrong one says."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from daemon.config import ConfigInvalid, as_toml, effective, load, settings

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with the user's configuration folder below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / "config"))
    return tmp_path


def _write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def _get(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def test_each_layer_overrides_the_one_before(folder: Path) -> None:
    _write(folder / "enrichd.toml", '[mongo]\nuri = "mongodb://file"\ndatabase = "file"\ncollection = "file"\n')
    environment = {"ENRICHD_MONGO__URI": "mongodb://variable", "ENRICHD_MONGO__DATABASE": "variable"}
    config = load(flags={"mongo.uri": "mongodb://flag", "mongo.database": None}, environment=environment)
    assert (config.mongo.uri, config.mongo.database, config.mongo.collection) == ("mongodb://flag", "variable", "file")


def test_the_first_file_found_is_the_only_one_read(folder: Path) -> None:
    users = _write(folder / "home" / "config" / "enrichd" / "enrichd.toml", '[mongo]\ndatabase = "users"\n')
    assert load(environment={}).mongo.database == "users"
    _write(folder / "enrichd.toml", '[mongo]\ncollection = "here"\n')
    assert load(environment={}).mongo.database == "enrichd"
    assert load(users, environment={}).mongo.database == "users"
    assert load(environment={"ENRICHD_CONFIG": str(users)}).mongo.database == "users"


def test_without_any_source_the_defaults_hold(folder: Path) -> None:
    config = load(environment={"PATH": "/bin", "ENRICHD_EVAL_DATA": "/data"})
    assert all(_get(config, setting.name) == setting.default for setting in settings())


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("ENRICHD_MONGO_URI", "mongodb://x", "mongo.uri", "mongodb://x"),  # one underscore will do
        ("ENRICHD_IMAGES_HTTP_ENABLED", "true", "images.http.enabled", True),
        ("ENRICHD_PIPELINE__IN_FLIGHT", "7", "pipeline.in_flight", 7),  # underscores of the name itself
        ("ENRICHD_IMAGES__ROOTS", "/a, /b", "images.roots", [Path("/a"), Path("/b")]),
        ("ENRICHD_IMAGES__ROOTS", '["/a,b"]', "images.roots", [Path("/a,b")]),  # a comma in a name needs JSON
        ("ENRICHD_IMAGES__FILTER", '{"album": {"$ne": null}}', "images.filter", {"album": {"$ne": None}}),
        ("ENRICHD_ENRICHERS__ENABLED", "objects,faces", "enrichers.enabled", ["objects", "faces"]),
        ("ENRICHD_ENRICHERS__OBJECTS__THRESHOLD", "0.25", "enrichers.objects", {"threshold": 0.25}),
        ("ENRICHD_ENRICHERS__OBJECTS__MODEL", "yolox", "enrichers.objects", {"model": "yolox"}),  # no TOML: text
    ],
)
def test_a_variable_sets_its_setting(folder: Path, variable: str, text: str, name: str, value: Any) -> None:
    assert _get(load(environment={variable: text}), name) == value


def test_a_variable_changes_one_setting_of_an_enricher_and_keeps_the_others(folder: Path) -> None:
    _write(folder / "enrichd.toml", "[enrichers.objects]\nthreshold = 0.5\nmax_items = 9\n")
    config = load(environment={"ENRICHD_ENRICHERS__OBJECTS__THRESHOLD": "0.3"})
    assert config.enrichers.settings("objects") == {"threshold": 0.3, "max_items": 9}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mongo]\nurl = 1\n", "mongo.url is no setting; did you mean mongo.uri?"),
        ("[mongos]\n", "mongos is no setting; did you mean mongo?"),
        ("[images.http]\ntimeout = 3\n", "images.http.timeout is no setting; did you mean images.http.timeout_s?"),
        ("zebra = 1\n", "zebra is no setting; the sections are mongo, "),  # nothing is near
        ('[enrichers]\nenable = ["objects"]\n', "enrichers.enable is no setting; did you mean enrichers.enabled?"),
        ("[embedded]\nport = 70000\n", "embedded.port: "),
        ("[mongo]\nuri = [\n", "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(folder: Path, text: str, message: str) -> None:
    file = _write(folder / "enrichd.toml", text)
    with pytest.raises(ConfigInvalid, match=re.escape(message)) as caught:
        load(environment={})
    assert file.name in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("ENRICHD_MONGO__URL", "x", "ENRICHD_MONGO__URL is no setting; did you mean ENRICHD_MONGO__URI?"),
        ("ENRICHD_EMBEDDED__PORT", "many", "ENRICHD_EMBEDDED__PORT: embedded.port: "),
        ("ENRICHD_IMAGES__FILTER", "{", "ENRICHD_IMAGES__FILTER is not valid JSON"),
        ("ENRICHD_CONFIG", "nowhere.toml", "There is no configuration file nowhere.toml"),
    ],
)
def test_a_wrong_variable_is_named(folder: Path, variable: str, text: str, message: str) -> None:
    with pytest.raises(ConfigInvalid, match=re.escape(message)):
        load(environment={variable: text})


def test_an_empty_variable_counts_as_not_set(folder: Path) -> None:
    assert load(environment={"ENRICHD_MONGO__URI": ""}).mongo.uri is None


def test_every_wrong_key_is_told_at_once(folder: Path) -> None:
    _write(folder / "enrichd.toml", "[mongo]\nurl = 1\n[sweep]\nverify_rate = 0\n")
    with pytest.raises(ConfigInvalid) as caught:
        load(environment={})
    assert len(str(caught.value).splitlines()) == 2


def test_no_two_settings_share_a_variable() -> None:
    single = ["_".join(setting.key) for setting in settings()]
    assert len(set(single)) == len(single)


def test_a_relative_path_of_a_file_is_below_its_folder(folder: Path) -> None:
    file = _write(
        folder / "etc" / "enrichd.toml", '[images]\nroots = ["photos", "/srv"]\n[models]\ncache = "weights"\n'
    )
    config = load(file, environment={"ENRICHD_EMBEDDED__DATA": "data"})
    assert config.images.roots == [folder / "etc" / "photos", Path("/srv")]
    assert config.models.cache == folder / "etc" / "weights"
    assert config.embedded.data == Path("data")  # a variable's is below the working folder


def test_folders_are_the_platforms_where_none_is_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "data"))
    config = load(environment={})
    assert config.models.folder.is_relative_to(folder)
    assert config.embedded.folder.is_relative_to(folder)


@pytest.mark.parametrize(
    ("uri", "masked"),
    [
        ("mongodb://ada:s3cret@db1,db2/?replicaSet=r", "mongodb://ada:***@db1,db2/?replicaSet=r"),
        ("mongodb+srv://ada:a%40b@db/x", "mongodb+srv://ada:***@db/x"),
        ("mongodb://ada:s3@cret@db/", "mongodb://ada:***@db/"),  # an @ that should have been escaped
        (
            "mongodb://db/?tlsCertificateKeyFilePassword=s3cret&w=1",
            "mongodb://db/?tlsCertificateKeyFilePassword=***&w=1",
        ),
        ("mongodb://127.0.0.1:27017/?w=1", "mongodb://127.0.0.1:27017/?w=1"),  # a port is no password
    ],
)
def test_secrets_are_masked(folder: Path, uri: str, masked: str) -> None:
    shown = effective(load(flags={"mongo.uri": uri}, environment={}))
    assert shown["mongo"]["uri"] == masked
    assert "s3cret" not in json.dumps(shown)


def test_what_is_printed_reads_back_the_same(folder: Path) -> None:
    flags = {
        "images.filter": {"album": "2024 \u2603", "$or": [{"a.b": 1}, {"c": True}]},
        "enrichers.objects": {"threshold": 0.5, "labels": ["dog"]},
        "images.roots": ["/srv/photos"],
    }
    config = load(flags=flags, environment={})
    _write(folder / "enrichd.toml", as_toml(effective(config)))
    assert load(environment={}) == config
    assert tomllib.loads(as_toml(effective(config)))["images"]["filter"] == flags["images.filter"]


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.*?) \|", DOCUMENTATION.read_text(), re.MULTILINE))
    expected = {}
    for setting in settings():
        known = setting.default is not None and setting.default != [] and setting.default != {}
        expected[setting.name] = f"`{json.dumps(setting.default)}`" if known else "–"
    assert rows == expected
