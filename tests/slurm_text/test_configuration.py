"""What scontrol says of the cluster and of a job's script is read as it is, and garbage is an error with a name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcresume.errors import SlurmError
from hpcresume.slurm.batch_script import AskedWarning, asked_warning, read_batch_script
from hpcresume.slurm.commands import Answer
from hpcresume.slurm.configuration import parse_configuration, read_configuration
from hpcresume.slurm.job_text import parse_time
from hpcresume.slurm.orders import owner
from hpcresume.slurm.submission import partition

TEXT = """\
Configuration data as of 2026-11-21T20:38:42
AuthInfo                = socket=/tmp/m/run/munge.socket,cred_expire=5
JobRequeue              = 1
KillWait                = 30 sec
OverTimeLimit           = 2 min
PowerPlugin             = 
PreemptMode             = GANG,REQUEUE
PreemptParameters       = (null)
PreemptType             = preempt/partition_prio
ProctrackType           = proctrack/cgroup
SlurmctldHost[0]        = vm(127.0.0.1)
SlurmctldParameters     = enable_configless,preempt_send_user_signal
SLURM_VERSION           = 22.05.8

Cgroup Support Configuration:
SignalChildrenProcesses = yes

Slurmctld(primary) at vm is UP
"""  # noqa: W291


def answering(out: str = "", *, code: int | None = 0, err: str = ""):
    return lambda arguments, timeout: Answer(code, out, err)


def test_the_settings_are_read():
    found = parse_configuration(TEXT)
    assert (found.version, found.text("JobRequeue"), found.text("PreemptParameters")) == ("22.05.8", "1", "")
    assert (found.seconds("KillWait"), found.seconds("OverTimeLimit"), found.seconds("PreemptMode")) == (30, 120, None)
    assert found.words("PreemptMode") == {"gang", "requeue"}
    assert found.text("SignalChildrenProcesses") == "yes"
    assert found.sends_user_signal
    assert found.told_at == parse_time("2026-11-21T20:38:42")


@pytest.mark.parametrize(
    ("old", "new", "sends"),
    [
        ("enable_configless,preempt_send_user_signal", "enable_configless", False),
        ("enable_configless,preempt_send_user_signal", "(null)", False),
        ("enable_configless,preempt_send_user_signal", "no_preempt_send_user_signal", False),
    ],
)
def test_only_the_very_setting_counts(old, new, sends):
    assert parse_configuration(TEXT.replace(old, new)).sends_user_signal is sends


def test_the_newer_name_of_the_setting_counts_too():
    text = TEXT.replace(",preempt_send_user_signal", "").replace(
        "PreemptParameters       = (null)", "PreemptParameters       = reclaim_licenses,send_user_signal"
    )
    assert parse_configuration(text).sends_user_signal


@pytest.mark.parametrize("text", ["", "slurm_load_ctl_conf error", "a = b\n" * 9, "SLURM_VERSION = 22.05.8\n"])
def test_garbage_is_an_error(text):
    with pytest.raises(SlurmError, match="no configuration"):
        parse_configuration(text)


@given(st.text(max_size=400))
def test_no_text_breaks_the_reading(text):
    try:
        parse_configuration(text)
        parse_configuration(TEXT + text)
    except SlurmError:
        pass


@pytest.mark.parametrize(
    "answer",
    [Answer(None, "", "FileNotFoundError: x"), Answer(None, "", "no answer within 10 s"), Answer(1, "", "boom")],
)
def test_a_command_that_is_missing_hangs_or_fails_is_an_error(answer):
    with pytest.raises(SlurmError):
        read_configuration(execute=lambda arguments, timeout: answer)
    with pytest.raises(SlurmError):
        read_batch_script("7", execute=lambda arguments, timeout: answer)
    with pytest.raises(SlurmError):
        owner("7", execute=lambda arguments, timeout: answer)


def test_whose_job_it_is():
    assert owner("7", execute=answering("1000\n")) == 1000
    assert owner("7", execute=answering("1000\n1000\n")) == 1000
    for out in ("", "root\n", "1000\n1001\n"):
        with pytest.raises(SlurmError):
            owner("7", execute=answering(out))


def test_what_a_preemption_does_in_a_partition_is_read():
    line = "PartitionName=low Default=YES GraceTime=20 State=UP TotalNodes=2 PreemptMode=REQUEUE\n"
    found = partition("low", execute=answering(line))
    assert found is not None
    assert (found.preempt_mode, found.grace) == ("REQUEUE", 20)


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("#SBATCH --signal=B:USR1@300", AskedWarning("USR1", True, 300)),
        ("#SBATCH --requeue --signal=USR2@90 --nodes=2", AskedWarning("USR2", False, 90)),
        ("#SBATCH --signal SIGTERM", AskedWarning("TERM", False, 60)),
        ("#SBATCH --signal=RB:10@30", AskedWarning("USR1", True, 30)),
        ('#SBATCH --signal="B:USR1@30"', AskedWarning("USR1", True, 30)),
        ("#SBATCH --signal=R:USR1@30", AskedWarning("USR1", False, 30)),
        ("#SBATCH --signal=NOSUCH@30", None),
        ("#SBATCH --nodes=2", None),
        ("##SBATCH --signal=USR1@30", None),
        ("# SBATCH --signal=USR1@30", None),
    ],
)
def test_the_warning_that_a_script_asks_for(line, asked):
    assert asked_warning(f"#!/bin/bash\n\n# words\n{line}\necho\n") == asked


def test_lines_count_up_to_the_first_command_and_the_last_one_wins():
    script = "#!/bin/bash\n#SBATCH --signal=USR2@9\n#SBATCH --signal=B:USR1@30\necho\n#SBATCH --signal=TERM@1\n"
    assert asked_warning(script) == AskedWarning("USR1", True, 30)
