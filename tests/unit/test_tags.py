"""Tags: labels and hypernyms of ImageNet's classes, from one forward pass that others share."""

import numpy as np
import pytest

from enrichers.contract import Result
from enrichers.efficientnet import SIDE, squeeze
from enrichers.image import Image
from enrichers.loading import ProcessLoader
from enrichers.similarity import Similarity
from enrichers.tags import Tags, Vocabulary
from enrichers.weights import ModelStore
from tests.unit.scene_images import CountingNetwork, OneNetwork, image


def tags(**settings: float) -> Tags:
    enricher = Tags({**Tags.defaults, **settings})
    enricher.load(OneNetwork(CountingNetwork()))
    return enricher


def probabilities(**of: float) -> np.ndarray:
    """Sum 1; the named classes get what is given (spaces as underscores), class 0 the rest."""
    vocabulary = Vocabulary.load()
    row = np.zeros(1000, np.float32)
    for word, value in of.items():
        row[vocabulary.labels.classes[word.replace("_", " ")][0]] = value
    row[0] = 1 - row.sum()
    return row


def test_every_class_has_a_name_and_lower_case() -> None:
    vocabulary = Vocabulary.load()
    classes = sorted(number for numbers in vocabulary.labels.classes.values() for number in numbers)
    assert classes == list(range(1000))
    assert all(word == word.lower() for word in [*vocabulary.labels.classes, *vocabulary.hypernyms.classes])


@pytest.mark.parametrize(
    ("label", "hypernym"),
    [
        ("tabby cat", "cat"),
        ("tabby cat", "animal"),
        ("beagle", "dog"),
        ("sports car", "vehicle"),
        ("school bus", "vehicle"),
        ("pizza", "food"),
        ("banana", "fruit"),
        ("kite", "bird"),  # the bird of prey, not the toy
        ("crane bird", "bird"),
        ("tea cup", "tableware"),
        ("daisy", "flower"),
    ],
)
def test_a_query_needs_no_latin(label: str, hypernym: str) -> None:
    vocabulary = Vocabulary.load()
    assert set(vocabulary.labels.classes[label]) <= set(vocabulary.hypernyms.classes[hypernym])


@pytest.mark.parametrize("word", ["container", "food", "dog"])
def test_a_car_is_neither_box_nor_food_nor_dog(word: str) -> None:
    vocabulary = Vocabulary.load()
    assert not set(vocabulary.labels.classes["sports car"]) & set(vocabulary.hypernyms.classes[word])


def test_hypernyms_gather_the_scores_of_classes_that_each_are_too_weak() -> None:
    answer = tags(min_score=0.3).answer(probabilities(beagle=0.25, pug=0.25))
    assert "dog" in answer["hypernyms"]
    assert not {"beagle", "pug"} & set(answer["labels"])


def test_labels_come_best_first_and_are_cut() -> None:
    answer = tags(max_items=1).answer(probabilities(beagle=0.6, pug=0.25))
    assert answer["labels"] == ["beagle"]
    assert answer["items"] == [{"label": "beagle", "score": pytest.approx(0.6)}]
    assert answer["cut"] == 2  # the pug, and the tench that got the rest


def test_nothing_likely_is_no_tag() -> None:
    answer = tags().answer(np.full(1000, 0.001, np.float32))
    assert answer["labels"] == [] and answer["items"] == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 900, 3), (900, 2, 3), (280, 280, 3)])
def test_pictures_of_any_form_fit(shape: tuple[int, int, int]) -> None:
    assert squeeze(np.zeros(shape, np.uint8)).shape == (SIDE, SIDE, 3)


def test_tags_and_similarity_look_once() -> None:
    network = CountingNetwork()
    loader = OneNetwork(network)
    batch = [image(np.full((50, 60, 3), level, np.uint8), key) for key, level in enumerate((10, 240))]
    enrichers = [Tags(Tags.defaults), Similarity(Similarity.defaults)]
    assert len({enricher.shares for enricher in enrichers}) == 1
    for enricher in enrichers:
        enricher.load(loader)
        assert all(isinstance(outcome, Result) for outcome in enricher.enrich(batch))
    assert network.looked == 2


def test_another_image_under_the_same_key_is_looked_at_anew() -> None:
    enricher = tags()
    dark, bright = (image(np.full((50, 60, 3), level, np.uint8), key=0) for level in (10, 240))
    first, second = (enricher.enrich([one])[0] for one in (dark, bright))
    assert isinstance(first, Result) and isinstance(second, Result)
    assert first.answer["labels"] != second.answer["labels"]


@pytest.fixture
def real(model_store: ModelStore) -> Tags:
    if missing := model_store.missing(["efficientnet_lite3"]):
        pytest.skip(f"the weights of {', '.join(missing)} have not been pulled")
    enricher = Tags(Tags.defaults)
    enricher.load(ProcessLoader(model_store))
    return enricher


def test_real_network_knows_a_cat_a_coffee_and_a_rocket_in_one_batch(real: Tags) -> None:
    from skimage import data

    pictures = [data.chelsea(), data.coffee(), data.rocket()]
    outcomes = real.enrich([image(picture, key) for key, picture in enumerate(pictures)])
    words = [{*o.answer["labels"], *o.answer["hypernyms"]} for o in outcomes if isinstance(o, Result)]
    assert "cat" in words[0] and "animal" in words[0]
    assert "beverage" in words[1]
    assert "missile" in words[2]


def test_real_network_says_the_same_alone_and_in_a_batch(real: Tags) -> None:
    from skimage import data

    def looked(*images: Image) -> np.ndarray:
        return np.stack(real._classifier.classify(images))

    together = looked(image(data.coffee()), image(data.chelsea()), image(data.rocket()))
    assert np.array_equal(looked(image(data.chelsea()))[0], together[1])
