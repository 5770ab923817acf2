"""The jobs of the golden files: each uses many keys, and together they use all of them."""

from __future__ import annotations

JOBS: dict[str, str] = {
    "everything.sbatch": """\
name: gpt small
run: /data/runs/gpt small
command: python train.py --text "it's $HOME" --lr 3e-4
log: logs/%x-%j.out
resources:
  nodes: 4
  ntasks_per_node: 8
  cpus_per_task: 7
  gpus_per_node: a100:8
  gpus_per_task: 1
  gres: shard:2
  mem: 480G
  time: 1-12:00
  time_min: 2h
  partition: gpu,long
  account: my account
  qos: high
  constraint: "[rack1|rack2]&infiniband"
  nodelist: n[1-8]
  exclude: n3
  reservation: r 1
  exclusive: true
  options: [--mail-type=END, "--comment=a \\"b\\" \\\\ #c", --overcommit]
checkpoint: {every: 500 steps, keep: 5, verify: sample, write_path: posix}
requeue:
  max_restarts: 20
  max_crashes: 5
  when_held: end
  pause: 2min
  exclude_for: 6h
  exclude_most: 2
  max_micro_batches: 8
  guard: true
  fallback: {partition: "gpu,cpu", nodes: 1, after_failures: 2, after_preemptions: 7, after_waiting: 4h}
  warning_lead: 90s
  warning_signal: USR2
environment:
  modules: [cuda/12.4, openmpi/5]
  venv: my venv
  variables: {OMP_NUM_THREADS: 7, NOTE: "it's $(x)"}
  before_commands:
    - ulimit -n 4096
    - |
      if true; then
        echo "on $(hostname)"
      fi
""",
    "smallest.sbatch": "name: a\ncommand: ./train\n",
    "torchrun.sbatch": """\
name: ddp
command: train.py --epochs 3
starter: torchrun
workers_per_node: 4
resources: {nodes: 2, cpus_per_task: 32, time: 4h}
environment: {conda: torch-env}
requeue: {enabled: false}
""",
    "mpiexec.sbatch": """\
name: m
command: ./solver -n 3
starter: mpiexec
resources: {ntasks_per_node: 4, mem_per_cpu: 2G}
""",
    "container-array.sbatch": """\
name: sweep
command: [python, train.py, "--name=a b"]
resources: {array: "0-9:3%2", time: 30min}
container: {image: my image.sif, runtime: singularity, binds: ["/data:/mnt:ro", /scratch dir], options: [--nv]}
""",
    "function.py": """\
name: f
function: package.module:train
args: [1, "it's \\"x\\"", {a: [null, true, 2.5]}]
kwargs: {lr: 0.1}
resources: {nodes: 2, cpus_per_task: 4, time: 390s, partition: gpu, qos: q, mem: 4G, options: [--mail-type=END]}
checkpoint: {every: auto}
environment: {modules: [cuda], variables: {A: b c}}
""",
}
"""Golden file → job.yaml."""
