"""Safety: prepared as the network was trained, labelled by the score."""

from pathlib import Path

import numpy as np
import pytest

from daemon.evaluate.frame import Evaluated, LabelsInvalid
from daemon.evaluate.labels import Pair, by_label, read_labels
from daemon.evaluate.safety import figures
from enrichers.contract import Failure, Result
from enrichers.errors import SettingInvalid
from enrichers.loading import ProcessLoader
from enrichers.safety import MEAN, Safety, prepared
from enrichers.weights import ModelStore
from tests.unit.scene_images import image


def test_the_picture_is_blue_green_red_and_less_the_mean() -> None:
    picture = np.zeros((300, 500, 3), np.uint8)
    picture[:] = (200, 100, 50)
    found = prepared(picture)
    assert found.shape == (224, 224, 3) and found.dtype == np.float32
    assert np.allclose(found.mean(axis=(0, 1)), np.array([50, 100, 200]) - MEAN, atol=3)  # JPEG moves colours a little


@pytest.mark.parametrize(
    ("score", "label"), [(0.0, "safe"), (0.199, "safe"), (0.2, "unsure"), (0.799, "unsure"), (0.8, "nsfw"), (1, "nsfw")]
)
def test_labels_follow_the_score(score: float, label: str) -> None:
    assert Safety(Safety.defaults).label(score) == label


@pytest.mark.parametrize("settings", [{"safe_below": 0.9}, {"nsfw_from": 1.2}, {"safe_below": -0.1}])
def test_limits_that_contradict_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(SettingInvalid, match="safe_below"):
        Safety({**Safety.defaults, **settings})


def test_real_network_finds_a_cat_safe_alone_and_in_a_batch(model_store: ModelStore) -> None:
    from skimage import data

    if missing := model_store.missing(["open_nsfw"]):
        pytest.skip(f"the weights of {', '.join(missing)} have not been pulled")
    enricher = Safety(Safety.defaults)
    enricher.load(ProcessLoader(model_store))
    outcomes = enricher.enrich([image(picture) for picture in (data.chelsea(), data.coffee(), data.astronaut())])
    answers = [outcome.answer for outcome in outcomes if isinstance(outcome, Result)]
    assert [answer["label"] for answer in answers] == ["safe", "safe", "safe"]
    (alone,) = enricher.enrich([image(data.coffee())])
    assert isinstance(alone, Result) and alone.answer["nsfw"] == pytest.approx(answers[1]["nsfw"], abs=1e-3)


def evaluated(name: str, score: float | None) -> Evaluated:
    said = Safety(Safety.defaults).answer(score) if score is not None else None
    return Evaluated(Path(name), None, {"safety": Result(said) if said else Failure("CorruptImage", "broken")})


def test_figures_count_each_label_and_leave_out_what_cannot_be_read() -> None:
    found = [evaluated("a", 0.9), evaluated("b", 0.05), evaluated("c", 0.5), evaluated("d", None)]
    result = figures(found, ["nsfw", "safe", "nsfw", "safe"])
    assert result["images"] == 3 and result["unread"] == 1
    assert result["labels"]["nsfw"] == {"precision": 1.0, "recall": 0.5, "images": 2}
    assert result["average_precision"] == 1.0


def test_a_value_that_is_never_found_has_no_precision() -> None:
    assert by_label([Pair("nsfw", "safe")])["nsfw"] == {"precision": None, "recall": 0.0, "images": 1}


@pytest.mark.parametrize("line", ["a.jpg", "a.jpg\tsafe\tmore", "\tsafe"])
def test_labels_that_cannot_be_read_name_their_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "labels.tsv"
    file.write_text(f"# comment\n{line}\n")
    with pytest.raises(LabelsInvalid, match="line 2"):
        read_labels(file, "label")


def test_files_are_beside_their_labels(tmp_path: Path) -> None:
    file = tmp_path / "labels.tsv"
    file.write_text("sub/a.jpg\tplace\tIndoor\n")
    (label,) = read_labels(file)
    assert (label.path, label.attribute, label.value) == (tmp_path / "sub/a.jpg", "place", "indoor")
