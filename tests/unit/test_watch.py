"""How far the resume token may go."""

from daemon.watch import Progress


def test_the_token_stops_before_the_first_open_event() -> None:
    progress = Progress()
    first, second, third = (progress.begin({"n": n}) for n in range(3))
    assert progress.token is None
    second()
    assert progress.token is None  # the first is still open
    first()
    assert progress.token == {"n": 1}
    third()
    assert progress.token == {"n": 2}
    assert progress.pending == 0


def test_a_quiet_stream_moves_on_only_when_nothing_is_open() -> None:
    progress = Progress()
    done = progress.begin({"n": 1})
    progress.idle({"n": 2})
    assert progress.token is None
    done()
    progress.idle({"n": 3})
    assert progress.token == {"n": 3}
    progress.idle(None)
    assert progress.token == {"n": 3}
