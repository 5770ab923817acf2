"""From what the processes of a probe heard to the table and the line to write."""

from __future__ import annotations

from hpcresume.ops.doctor.signal_map import ACTORS, advice, map_findings, parse_heard, rows_of

WAYS = ("scancel -s USR1", "scancel -b -s USR1", "scancel --full -s USR1", "kill -USR1 of the launcher")
EVERYBODY = ("batch", "batch.child", "{0}-rank0", "{0}-rank1", "{0}-rank0.child", "{0}-rank1.child")


def probe(reached: dict[tuple[str, str], tuple[str, ...]], *, skew: float = 0.0, dead: tuple[str, ...] = ()):
    """Events three seconds apart, and the files of all processes; `reached` says who hears which event."""
    events, heard, at = [], {}, 1000.0
    for launcher in ("srun", "mpiexec"):
        for name in (each.format(launcher) for each in EVERYBODY):
            heard.setdefault(name, f"990.0 START {'n2' if 'rank1' in name else 'n1'}\n")
        for way in WAYS:
            for name in reached.get((launcher, way), ()):
                ahead = skew if "rank1" in name else 0.0
                heard[name] += f"{at + 0.1 + ahead:.4f} CONT\n{at + 0.11 + ahead:.4f} USR1\n"
            survived = f"{launcher} {way}" not in dead
            events.append({"launcher": launcher, "event": way, "at": at, "until": at + 2.5, "survived": survived})
            at += 3.0
    return events, [parse_heard(name, text, {"n2": skew}) for name, text in heard.items()]


def usual(launcher: str) -> dict[tuple[str, str], tuple[str, ...]]:
    ranks = tuple(each.format(launcher) for each in EVERYBODY[2:])
    return {
        (launcher, WAYS[0]): ranks,
        (launcher, WAYS[1]): ("batch",),
        (launcher, WAYS[2]): ("batch", "batch.child", *ranks),
        (launcher, WAYS[3]): ranks,
    }


def test_who_hears_what_is_told_by_the_time_at_which_it_was_heard():
    events, heard = probe(usual("srun"))
    rows = {row.event: row for row in rows_of(events, heard, "n1") if row.launcher == "srun"}
    assert tuple(rows[WAYS[1]].reached) == ACTORS
    assert list(rows[WAYS[0]].reached.values()) == ["none", "none", "all", "all", "all"]
    assert list(rows[WAYS[1]].reached.values()) == ["all", "none", "none", "none", "none"]
    assert list(rows[WAYS[2]].reached.values()) == ["all"] * 5


def test_a_clock_that_is_five_seconds_ahead_changes_nothing():
    straight, skewed = (rows_of(*probe(usual("srun"), skew=skew), "n1") for skew in (0.0, 5.0))
    assert [row.reached for row in straight] == [row.reached for row in skewed]


def test_with_both_ways_srun_and_the_batch_shell_are_advised():
    events, heard = probe(usual("srun") | usual("mpiexec"))
    found = advice(rows_of(events, heard, "n1"), 140)
    assert found.signal_line == "#SBATCH --requeue --open-mode=append --signal=B:USR1@140"
    assert "--mpi srun" in found.wrapper


def test_where_srun_does_not_pass_it_on_mpiexec_is_advised():
    reached = usual("srun") | usual("mpiexec")
    reached["srun", WAYS[3]] = ("srun-rank0",)
    events, heard = probe(reached)
    rows = rows_of(events, heard, "n1")
    found = advice(rows, 120)
    assert "--mpi mpiexec" in found.wrapper
    told = {each.name: each.verdict for each in map_findings(events, rows, found)}
    assert told["srun passes on"] == "warn"
    assert told["mpiexec passes on"] == told["warning"] == "ok"


def test_where_the_batch_shell_hears_nothing_the_ranks_are_told_themselves():
    reached = usual("srun")
    reached["srun", WAYS[1]] = ()
    events, heard = probe(reached)
    found = advice(rows_of(events, heard, "n1"), 120)
    assert found.signal_line.endswith("--signal=USR1@120")


def test_where_nobody_hears_anything_that_is_bad():
    events, heard = probe({})
    rows = rows_of(events, heard, "n1")
    found = advice(rows, 120)
    assert (found.signal_line, found.wrapper) == ("", "")
    assert {each.name: each.verdict for each in map_findings(events, rows, found)}["warning"] == "bad"


def test_a_launcher_that_dies_and_one_that_never_came_up_are_told():
    events, heard = probe(usual("srun"), dead=(f"srun {WAYS[2]}",))
    events.append({"launcher": "mpiexec", "problem": "0 of 4 ranks came up"})
    rows = rows_of(events, heard, "n1")
    found = list(map_findings(events, rows, advice(rows, 120)))
    assert any(each.name == "launchers that die" and "srun by scancel --full" in each.what for each in found)
    assert any(each.verdict == "unknown" and "0 of 4 ranks came up" in each.what for each in found)


def test_the_warning_before_a_time_limit_is_measured():
    limit = {"launcher": "srun", "event": "time limit of the batch shell", "at": 1000.0, "end": 1120.0}
    texts = {"batch": "999 START n1\n1043.5 USR1\n1120 TERM\n", "srun-rank0": "999 START n1\n"}
    heard = [parse_heard(name, text, {}) for name, text in texts.items()]
    (row,) = rows_of([limit], heard, "n1")
    assert (row.reached["batch shell"], row.reached["ranks here"], row.early) == ("all", "none", 76.5)
    assert any("came 76 s before" in each.what for each in map_findings([limit], [row], advice([row], 120)))
    silent = [parse_heard("batch", "999 START n1\n", {})]
    (row,) = rows_of([limit], silent, "n1")
    assert {f.verdict for f in map_findings([limit], [row], advice([row], 120)) if "limit" in f.name} == {"bad"}
    (row,) = rows_of([{**limit, "end": None}], heard, "n1")
    assert {f.verdict for f in map_findings([limit], [row], advice([row], 120)) if "limit" in f.name} == {"unknown"}


def test_torn_lines_are_passed_over():
    found = parse_heard("batch", "12.5 START n1\nx USR1\n13.0 US\x00\n14.0\n15.0 USR1\n", {"n1": 1.0})
    assert (found.host, found.signals) == ("n1", ((14.0, "USR1"),))
