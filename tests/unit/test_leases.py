"""Buckets, even shares and the moves towards them."""

import os
from collections import Counter

import pytest
from bson import ObjectId

from daemon.leases import Move, bucket_of, is_gone, machine, next_move, share
from daemon.store.leases import BUCKETS, Bucket, Member, Table


def table(*owners: str | None) -> Table:
    padded = [*owners, *["other"] * (BUCKETS - len(owners))]
    return Table(tuple(Bucket(owner, None) for owner in padded))


def test_a_key_has_one_bucket_whatever_else_its_shard_key_holds() -> None:
    id = ObjectId()
    assert bucket_of({"_id": id}) == bucket_of({"album": 3, "_id": id})
    assert 0 <= bucket_of({"_id": id}) < BUCKETS


def test_keys_spread_evenly() -> None:
    counts = Counter(bucket_of({"_id": n}) for n in range(6400))
    assert len(counts) == BUCKETS and max(counts.values()) < 200


@pytest.mark.parametrize("members", [1, 2, 3, 5, 7, 64])
def test_shares_differ_by_one_at_most_and_cover_all(members: int) -> None:
    names = [f"d{n:02}" for n in range(members)]
    shares = [share(names, name) for name in names]
    assert sum(shares) == BUCKETS and max(shares) - min(shares) <= 1


def test_whoever_has_too_many_gives_the_last_ones() -> None:
    everything = Table(tuple(Bucket("a", None) for _ in range(BUCKETS)))
    assert next_move(everything, ["a", "b"], "a") == Move(give=tuple(range(32, 64)))
    assert next_move(everything, ["a", "b"], "b") == Move()  # nothing is free yet


def test_whoever_has_too_few_takes_free_ones_up_to_its_share() -> None:
    free = Table(tuple(Bucket(None, None) for _ in range(BUCKETS)))
    assert next_move(free, ["a", "b"], "b") == Move(take=tuple(range(32)))
    assert next_move(table("a", None, None), ["a"], "a") == Move(take=(1, 2))  # the rest is another's for now


@pytest.mark.parametrize(
    ("where", "pid", "gone"),
    [
        ("here", os.getpid(), True),  # a container that starts anew has the number of its former self
        ("here", 2**22 + 5, True),  # beyond the highest number there is
        ("here", os.getppid(), False),
        ("elsewhere", 2**22 + 5, False),  # its number means nothing here
    ],
)
def test_a_member_of_this_machine_is_gone_with_its_process(where: str, pid: int, gone: bool) -> None:
    here = machine() or pytest.skip("this platform does not tell machines apart")
    member = Member("x", True, None, "host", here if where == "here" else where, pid, "plan")
    assert is_gone(member, here) is gone
