"""Queries that are put together."""

import pytest

from daemon.store.collections import Document, all_of


@pytest.mark.parametrize(
    ("queries", "expected"),
    [
        ([], {}),
        ([{"a": 1}, {}, {"b": {"$ne": None}}], {"a": 1, "b": {"$ne": None}}),
        ([{"a": 1}, {"a": {"$gt": 0}, "b": 2}], {"$and": [{"a": 1, "b": 2}, {"a": {"$gt": 0}}]}),  # one field twice
        ([{"$or": [1]}, {"$or": [2]}], {"$and": [{"$or": [1]}, {"$or": [2]}]}),
        ([{"$and": [1]}, {"a": 1}], {"$and": [1], "a": 1}),
        ([{"$and": [1]}, {"$and": [2]}], {"$and": [{"$and": [1]}, {"$and": [2]}]}),
    ],
)
def test_conditions_stand_side_by_side_where_they_can(queries: list[Document], expected: Document) -> None:
    assert all_of(*queries) == expected
