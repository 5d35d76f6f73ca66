"""Which files are added, and that one file has one source."""

from pathlib import Path

import pytest

from daemon.addition import NothingToAdd, OutsideRoots, find_images, source_of


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.PNG", "notes.txt", ".hidden.jpg", "deep/c.heic", ".git/d.jpg"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "photos"


@pytest.mark.parametrize(("recursive", "names"), [(False, ["a.jpg", "b.PNG"]), (True, ["a.jpg", "b.PNG", "c.heic"])])
def test_a_folder_gives_its_images(photos: Path, recursive: bool, names: list[str]) -> None:
    found = find_images([photos], recursive)
    assert [file.name for file in found.files] == names
    assert found.skipped == 1  # notes.txt; hidden files are not even counted


def test_a_named_file_is_taken_whatever_its_name(photos: Path) -> None:
    assert find_images([photos / "notes.txt", photos / ".hidden.jpg"], False).skipped == 0


def test_a_file_named_twice_is_taken_once(photos: Path) -> None:
    assert len(find_images([photos / "a.jpg", photos, photos], False).files) == 2


def test_a_path_that_is_not_there_is_an_error(photos: Path) -> None:
    with pytest.raises(NothingToAdd, match="gone"):
        find_images([photos / "gone.jpg"], False)


def test_a_file_has_one_source_however_it_is_written(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos / "deep")
    link = photos.parent / "link"
    link.symlink_to(photos)
    for path in (photos / "a.jpg", Path("../a.jpg"), Path("../../photos/a.jpg"), link / "a.jpg"):
        assert source_of(path, [photos]) == "a.jpg"


def test_a_file_below_another_root_keeps_its_whole_path(photos: Path) -> None:
    assert source_of(photos / "a.jpg", [photos / "deep", photos]) == (photos / "a.jpg").as_posix()


@pytest.mark.parametrize(("roots", "hint"), [([], "--root"), (["deep"], "outside")])
def test_a_file_that_the_daemon_may_not_read_is_refused(photos: Path, roots: list[str], hint: str) -> None:
    with pytest.raises(OutsideRoots, match=hint):
        source_of(photos / "a.jpg", [photos / root for root in roots])


def test_a_link_out_of_the_root_is_refused(photos: Path) -> None:
    (photos / "deep" / "out.jpg").symlink_to(photos / "a.jpg")
    with pytest.raises(OutsideRoots):
        source_of(photos / "deep" / "out.jpg", [photos / "deep"])
