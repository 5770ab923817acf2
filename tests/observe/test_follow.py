"""Following a run while it is written."""

from hpcresume.observe.follow import RunFollower


def test_a_follower_gives_every_update_once_in_order_of_time(written):
    follower = RunFollower(written.run)
    assert follower.poll() == []
    written.event(1, "claimed")
    written.supervisor(1, "started")
    written.steps(1, 1, 2)
    seen = [(u.attempt, u.source) for u in follower.poll()]
    assert seen == [(1, "session"), (1, "supervisor"), (1, "metrics"), (1, "metrics")]
    assert follower.poll() == []
    written.event(2, "claimed")
    assert [(u.attempt, u.record.event) for u in follower.poll()] == [(2, "claimed")]
