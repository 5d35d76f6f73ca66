"""The window of the oplog."""

from daemon.store.collections import Collections
from daemon.store.oplog import OplogWindow


async def test_the_embedded_server_is_not_asked_for_its_whole_history(collections: Collections) -> None:
    assert await OplogWindow(collections).read() is None
