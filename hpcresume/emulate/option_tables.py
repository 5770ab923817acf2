"""The options that Slurm's commands know (their manual pages, 22.05 to 24.11). Tables only."""

from __future__ import annotations

from hpcresume.emulate.getopt_long import table

__all__ = ["SACCT", "SBATCH", "SBATCH_ENVIRON", "SCANCEL", "SCONTROL", "SINFO", "SQUEUE", "SRUN"]

_SHARED = """
account/A= acctg-freq= bb= bbf= begin/b= chdir/D= cluster-constraint= clusters/M= comment= constraint/C= container=
container-id= contiguous core-spec/S= cores-per-socket= cpu-freq= cpus-per-gpu= cpus-per-task/c= deadline=
delay-boot= dependency/d= distribution/m= error/e= exclude/x= exclusive=? export= extra= extra-node-info/B=
get-user-env=? gid= gpu-bind= gpu-freq= gpus/G= gpus-per-node= gpus-per-socket= gpus-per-task= gres= gres-flags=
help/h hint= hold/H input/i= job-name/J= licenses/L= mail-type= mail-user= mcs-label= mem= mem-bind= mem-per-cpu=
mem-per-gpu= mincpus= network= nice=? no-kill/k=? nodefile/F= nodelist/w= nodes/N= ntasks/n= ntasks-per-core=
ntasks-per-gpu= ntasks-per-node= ntasks-per-socket= open-mode= output/o= overcommit/O oversubscribe/s partition/p=
power= prefer= priority= profile= propagate=? qos/q= quiet/Q reboot reservation= signal= sockets-per-node=
spread-job switches= thread-spec= threads-per-core= time/t= time-min= tmp= tres-bind= tres-per-task= uid= usage
use-min-nodes verbose/v version/V wckey=
"""

SBATCH = table(
    _SHARED
    + """
array/a= batch= export-file= ignore-pbs kill-on-invalid-dep= no-requeue parsable requeue resv-ports=? stepmgr
test-only wait/W wait-all-nodes= wrap=
"""
)
"""sbatch(1)."""

SRUN = table(
    _SHARED
    + """
accel-bind= bcast=? bcast-exclude= compress=? cpu-bind= disable-status/X epilog= exact external-launcher
het-group= immediate/I=? interactive jobid= kill-on-bad-exit/K=? label/l max-threads= mpi= msg-timeout= multi-prog
no-allocate/Z overlap preserve-env/E prolog= pty=? quit-on-interrupt/q relative/r= resv-ports=? send-libs=?
slurmd-debug= task-epilog= task-prolog= threads/T= treewidth= unbuffered/u wait/W= whole
"""
)
"""srun(1)."""

SCANCEL = table(
    """
account/A= admin-comment= batch/b clusters/M= ctld cron full/f help help hurry/H interactive/i jobname/n= name=
me nodelist/w= partition/p= qos/q= quiet/Q reservation/R= sibling= signal/s= state/t= usage user/u= verbose/v
version/V wckey=
"""
)
"""scancel(1)."""

SQUEUE = table(
    """
account/A= all/a array/r array-unique clusters/M= expand-patterns federation format/o= Format/O= help hide
iterate/i= job=  jobs/j= json=? licenses/L= local long/l me name/n= node= nodelist/w= nodes= noconvert noheader/h
only-job-state partition/p= partitions= priority/P qos/q= reservation/R= sib sibling sort/S= start state= states/t=
steps/s=? usage user= users/u= verbose/v version/V yaml=?
"""
)
"""squeue(1)."""

SACCT = table(
    """
account/A= allclusters/L allocations/X allusers/a array batch-script/B brief/b cluster= clusters/M= completion/c
constraints/C= delimiter= duplicates/D endtime/E= env-vars expand-patterns federation flags/F= format/o= gid/g=
group= help/h helpformat/e jobs/j= json=? local long/l name= ncpus/I= nnodes/i= nodelist/N= noconvert noheader/n
parsable/p parsable2/P partition/r= qos/q= reason/R= starttime/S= state/s= submitted-after submit-line timelimit-max/K=
timelimit-min/k= truncate/T uid/u= units= usage user= use-local-uid verbose/v version/V wckeys/W= whole-hetjob=?
yaml=?
"""
)
"""sacct(1)."""

SINFO = table(
    """
all/a cluster= clusters/M= dead/d exact/e federation/F format/o= Format/O= future help hide iterate/i= json=?
list-reasons/R local long/l Node/N nodes/n= noconvert noheader/h partition/p= reservation/T responding/r sort/S=
states/t= summarize/s usage verbose/v version/V yaml=?
"""
)
"""sinfo(1)."""

SCONTROL = table(
    """
all/a clusters/M= details/d federation/F future/f help/h hide/Q json=? local oneliner/o quiet/Q sibling uid/u=
usage verbose/v version/V yaml=?
"""
)
"""scontrol(1)."""

SBATCH_ENVIRON = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_ARRAY_INX": "array",
    "SBATCH_CHDIR": "chdir",
    "SBATCH_COMMENT": "comment",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_CPUS_PER_GPU": "cpus-per-gpu",
    "SBATCH_ERROR": "error",
    "SBATCH_EXCLUSIVE": "exclusive",
    "SBATCH_EXPORT": "export",
    "SBATCH_GPUS": "gpus",
    "SBATCH_GPUS_PER_NODE": "gpus-per-node",
    "SBATCH_GPUS_PER_TASK": "gpus-per-task",
    "SBATCH_GRES": "gres",
    "SBATCH_INPUT": "input",
    "SBATCH_JOB_NAME": "job-name",
    "SBATCH_MEM_PER_CPU": "mem-per-cpu",
    "SBATCH_MEM_PER_NODE": "mem",
    "SBATCH_NO_REQUEUE": "no-requeue",
    "SBATCH_OPEN_MODE": "open-mode",
    "SBATCH_OUTPUT": "output",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_REQUEUE": "requeue",
    "SBATCH_RESERVATION": "reservation",
    "SBATCH_SIGNAL": "signal",
    "SBATCH_TIMELIMIT": "time",
    "SBATCH_WAIT": "wait",
    "SBATCH_WCKEY": "wckey",
}
"""Environment variable → option (sbatch(1), INPUT ENVIRONMENT VARIABLES)."""
