"""What can be wrong before anything starts, told with what to do about it: no Slurm needed."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from pathlib import Path

import pytest

from hpcresume.cli.main import main
from hpcresume.errors import ClusterError, ConfigError
from hpcresume.testing.minislurm import machine, ports
from hpcresume.testing.minislurm.logs import complaints
from hpcresume.testing.minislurm.places import Places
from hpcresume.testing.minislurm.settings import Settings, default_partitions
from hpcresume.testing.minislurm.state import FORMAT, State, claim, clear, is_ours, nothing_is_there, read

SETTINGS = Settings(partitions=default_partitions(20), extra={"KillWait": "9"})


def state(**changes) -> State:
    usual = State(FORMAT, "cafe", os.geteuid(), 17000, "22.05.8", None, True, SETTINGS)
    return dataclasses.replace(usual, **changes)


# ---- programs and rights


def test_missing_programs_are_named_with_the_packages_that_bring_them(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(machine, "search_path", lambda: str(tmp_path))
    code = main(["minislurm", "up", "/tmp/c-that-is-not-there", "--accounting"])
    said = capsys.readouterr().err.splitlines()
    assert code == 69
    assert said[0].startswith("error: Slurm needs munged, slurmctld, slurmd, sbatch")
    hint = said[2].split()
    assert hint[1:4] == ["apt-get", "install", "--no-install-recommends"]
    assert {"munge", "slurmctld", "slurmd", "slurm-client", "slurmdbd", "mariadb-server-core"} <= set(hint[4:])
    assert len(hint[4:]) == len(set(hint[4:]))
    assert not Path("/tmp/c-that-is-not-there").exists()


def test_the_programs_of_accounting_are_asked_for_only_with_accounting(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "search_path", lambda: str(tmp_path))
    assert "slurmdbd" not in machine.missing_programs()
    assert {"slurmdbd", "mariadbd", "sacctmgr"} <= set(machine.missing_programs(accounting=True))


def test_a_root_without_a_debian_in_it_is_refused(tmp_path):
    with pytest.raises(ClusterError, match="there is no Debian in this root"):
        machine.check_machine(root=tmp_path)


def test_a_root_without_slurm_in_it_is_told_what_to_install_where(tmp_path):
    (tmp_path / "etc").mkdir()
    with pytest.raises(ClusterError, match="Slurm needs munged") as caught:
        machine.check_machine(root=tmp_path)
    assert caught.value.hint.startswith(f"chroot {tmp_path} apt-get install")


def test_a_user_without_a_name_is_refused(monkeypatch):
    monkeypatch.setattr(machine, "missing_programs", lambda **_: [])
    monkeypatch.setattr(machine, "user_name", lambda: "12345")
    with pytest.raises(ClusterError, match="user 12345 has no name"):
        machine.check_machine()


# ---- ports


def test_ports_that_are_kept_can_be_had_by_a_daemon_and_not_by_a_second_cluster():
    with ports.free_ports(4) as first:
        with socket.socket() as daemon:
            daemon.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            daemon.bind(("127.0.0.1", first))
            daemon.listen()
            assert ports.taken_ports(range(first, first + 4)) == [first]
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", first + 3))
        for _ in range(20):
            with ports.free_ports(4) as second:
                assert abs(second - first) >= 4


def test_where_all_ports_are_taken_the_error_says_which(monkeypatch):
    monkeypatch.setattr(ports, "LAST", ports.FIRST + 8)
    taken, refused = ports.free_ports(3), pytest.raises(ClusterError, match="no 3 neighbouring free ports")
    with taken, ports.free_ports(3), refused, ports.free_ports(3):
        pass


# ---- the directory


def test_a_cluster_s_directory_is_private_and_remembered_whole(tmp_path):
    places = Places(tmp_path / "c")
    claim(places, state())
    assert read(places) == state()
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700
    assert places.marker.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="there is a cluster in this directory"):
        claim(places, state(token="beef"))
    clear(places, state(token="beef"), keep_logs=False)
    assert is_ours(places, "cafe"), "a cluster that came later was removed"
    clear(places, state(), keep_logs=False)
    assert not (tmp_path / "c").exists()


def test_a_directory_that_was_there_before_stays(tmp_path):
    places = Places(tmp_path)
    claim(places, state(made=False))
    clear(places, state(made=False), keep_logs=False)
    assert list(tmp_path.iterdir()) == []


def test_kept_logs_are_all_that_is_kept_and_count_as_nothing(tmp_path):
    places = Places(tmp_path / "c")
    claim(places, state())
    (places.logs / "slurmctld.log").write_text("x")
    clear(places, state(), keep_logs=True)
    assert [path.name for path in (tmp_path / "c").rglob("*")] == ["log", "slurmctld.log"]
    assert nothing_is_there(tmp_path / "c")
    assert nothing_is_there(tmp_path / "never")
    assert not nothing_is_there(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "\x00\xff", '{"format": 1, "settings": {"nodes": 0}}'])
def test_a_damaged_file_is_told_and_not_believed(tmp_path, text):
    places = Places(tmp_path)
    places.marker.write_text(text)
    with pytest.raises(ClusterError, match="damaged"):
        read(places)


def test_settings_out_of_their_limits_in_the_file_are_damage(tmp_path):
    places = Places(tmp_path / "c")
    claim(places, state())
    fields = json.loads(places.marker.read_text())
    fields["settings"]["nodes"] = 10**9
    places.marker.write_text(json.dumps(fields))
    with pytest.raises(ClusterError, match="damaged"):
        read(places)


def test_another_user_s_cluster_and_another_version_s_are_left_alone(tmp_path, monkeypatch):
    places = Places(tmp_path / "c")
    claim(places, state())
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(ClusterError, match="belongs to another user"):
        read(places)
    monkeypatch.undo()
    places.marker.write_text(places.marker.read_text().replace('"format":1', '"format":2'))
    with pytest.raises(ClusterError, match="another version of hpcresume"):
        read(places)


def test_down_and_status_say_what_they_find_where_nothing_is_up(tmp_path, capsys):
    assert main(["minislurm", "down", str(tmp_path / "c")]) == 0
    assert "nothing is up" in capsys.readouterr().err
    assert main(["minislurm", "--json", "down", str(tmp_path / "c")]) == 0
    assert json.loads(capsys.readouterr().out)["was_up"] is False
    for words in (["status"], ["env"], ["kill-node"], ["start-node"]):
        more = ["n1"] if words[0].endswith("node") else []
        assert main(["minislurm", *words, str(tmp_path / "c"), *more]) == 69
        assert "error: there is no cluster here" in capsys.readouterr().err


# ---- what daemons said


def test_the_last_complaint_of_a_daemon_is_what_is_shown(tmp_path: Path):
    (tmp_path / "slurmctld.out").write_text("starting\nfatal: bind: Address already in use\nbye\n")
    assert complaints(tmp_path, "slurmctld") == "fatal: bind: Address already in use"
    (tmp_path / "n1.out").write_text("one\ntwo\n")
    assert complaints(tmp_path, "n1") == "one; two"
    assert complaints(tmp_path, "munged") == ""
