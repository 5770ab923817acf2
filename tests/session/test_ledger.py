"""Lines that readers can trust, from writers that never stand in the way."""

from __future__ import annotations

import errno
import json
import math

import numpy as np
import pytest
import torch

from hpcresume.errors import UntrackableError
from hpcresume.io.files import Files, substituted
from hpcresume.model import Event
from hpcresume.session.ledger import Ledger, LineWriter, Metrics, Progress


def lines(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def test_events_carry_both_clocks_and_nothing_json_cannot_say(tmp_path):
    ledger = Ledger(tmp_path / "l")
    ledger.emit(Event("x", {"bad": math.nan, "deep": [{"inf": math.inf}], "path": tmp_path, "n": 2**70}))
    ledger.close()
    (line,) = lines(tmp_path / "l")
    assert line["event"] == "x"
    assert line["t"] > 1e9
    assert line["mono"] > 0
    assert (line["bad"], line["deep"], line["path"], line["n"]) == ("nan", [{"inf": "inf"}], str(tmp_path), 2**70)
    assert (tmp_path / "l").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_never_written_to_never_exists(tmp_path):
    Ledger(tmp_path / "l").close()
    assert not (tmp_path / "l").exists()


class Torn(Files):
    """The first line is cut in the middle, the next one (which would tell of it) refused."""

    calls = 0

    def append(self, fd, data):
        self.calls += 1
        if self.calls == 1:
            return super().append(fd, data[: len(data) // 2])
        if self.calls == 2:
            raise OSError(errno.EIO, "injected")
        return super().append(fd, data)


def test_a_torn_line_costs_itself_only_and_the_loss_is_told_later(tmp_path):
    faults = Torn()
    ledger = Ledger(tmp_path / "l")
    with substituted(faults):
        for name in ("torn", "second", "third", "fourth"):
            ledger.emit(Event(name))
    ledger.close()
    assert faults.calls >= 4
    whole = []
    for line in (tmp_path / "l").read_text().split("\n"):
        try:
            whole.append(json.loads(line)["event"])
        except ValueError:
            continue
    assert whole == ["second", "ledger-lines-lost", "third", "fourth"]


def test_a_directory_that_is_gone_is_no_error(tmp_path):
    writer = LineWriter(tmp_path / "gone" / "l")
    writer.write({"a": 1})
    writer.sync()
    writer.close()
    assert writer.lost == 1
    progress = Progress(tmp_path / "gone" / "p")
    progress.write(5)
    progress.beat()
    progress.close()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.1, 0.1), (3, 3), (np.float64(0.1), 0.1), (np.int64(3), 3), (np.array([0.5]), 0.5),
        (torch.tensor(0.25), 0.25), (torch.tensor([2]), 2), (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
        (math.inf, "inf"), (-math.inf, "-inf"), (torch.tensor(math.nan), "nan"),
        (torch.nn.Parameter(torch.tensor(2.0)), 2.0),
    ],
)  # fmt: skip
def test_numbers_are_logged_exactly(tmp_path, value, written):
    metrics = Metrics(tmp_path / "m")
    metrics.log(7, {"x": value})
    metrics.close()
    (line,) = lines(tmp_path / "m")
    assert (line["step"], line["values"]) == (7, {"x": written})


@pytest.mark.parametrize("value", [torch.zeros(2), np.zeros(2), "1", True, np.bool_(True), 1j, None])
def test_what_is_no_number_is_refused_by_name(tmp_path, value):
    with pytest.raises(UntrackableError) as caught:
        Metrics(tmp_path / "m").log(7, {"x": value})
    assert caught.value.where == "log x"


def test_a_heartbeat_renews_the_time_of_the_progress_file(tmp_path):
    import os

    progress = Progress(tmp_path / "p")
    progress.write(2**40)
    os.utime(tmp_path / "p", (1, 1))
    progress.beat()
    assert (tmp_path / "p").stat().st_mtime > 1e9
    assert int.from_bytes((tmp_path / "p").read_bytes(), "little") == 2**40
    progress.close()
