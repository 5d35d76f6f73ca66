"""Pictures of embeddings: people apart from one another, in a page that needs nothing from elsewhere."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from daemon.people_plot import PlotInvalid, Points, arrange, draw, page
from tests.people import vector


def points(people: int, shots: int, alone: int) -> Points:
    """So many people, and so many faces of identities that have no other."""
    owner = np.concatenate([np.repeat(np.arange(people), shots), people + np.arange(alone)])
    vectors = np.stack([vector(int(who), shot) for shot, who in enumerate(owner)])
    return arrange(vectors, owner, [f"person {who}" for who in range(people + alone)])


@pytest.mark.parametrize(("people", "alone"), [(6, 0), (6, 3), (2, 1), (0, 5)])  # enough to tell apart, or too few
def test_people_lie_apart(people: int, alone: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = points(people, 8, alone)
    assert found.positions.shape == (people * 8 + alone, 3)
    assert np.abs(found.positions).max() <= 1.0
    if people > 4:
        middles = np.stack([found.positions[found.owner == who].mean(axis=0) for who in range(people)])
        spread = np.mean([found.positions[found.owner == who].std(axis=0).max() for who in range(people)])
        gaps = np.linalg.norm(middles[:, None] - middles[None], axis=2)[np.triu_indices(people, 1)]
        assert gaps.min() > 2 * spread


def test_the_page_stands_alone_and_a_name_cannot_break_out_of_it() -> None:
    found = points(2, 3, 0)
    text = page(Points(found.positions, found.owner, ("</script><script>alert(1)</script>", "Ada")))
    assert not re.search(r"https?:|<link|<img|src=|import ", text)
    assert text.count("</script>") == 1


def test_one_face_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(PlotInvalid, match="fewer than two faces"):
        points(0, 0, 1)
    with pytest.raises(PlotInvalid, match=r"\.png or \.html"):
        draw(points(2, 2, 0), tmp_path / "people.pdf")
