"""A data-parallel torch training under gloo: ddp_training.py RUN OUT STEPS SECONDS_A_STEP [WORD]….

Each rank appends to OUT/rank-N.jsonl a line for each step, and the digest of its final state. The program
makes torch's process group itself, as most do; with `lent` the session does. `named` asks for comm="torch". With
`rebuilt` DDP may lay its buckets out anew; with `settled` it has done so before the loop.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

run, out, steps, seconds, *words = sys.argv[1:]
RANK = int(os.environ["RANK"])
torch.set_num_threads(1)
torch.manual_seed(0)
data = torch.randn(48, 9)
net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))


def record(**fields: object) -> None:
    """A line that survives a kill."""
    with (Path(out) / f"rank-{RANK}.jsonl").open("a") as file:
        file.write(json.dumps(fields) + "\n")


def main() -> None:
    """Train."""
    import hpcresume as hr

    if "lent" not in words:
        dist.init_process_group("gloo")
    with hr.session(run, every="1000 steps", reaction=0.02, comm="torch" if "named" in words else "auto") as s:
        # DDP lays its buckets out anew in the second step of every process, and with more than two ranks the order of
        # a sum depends on the layout: without this, or two throwaway steps before the loop, a resume differs by an ulp.
        steady = not {"rebuilt", "settled"} & set(words)
        model = torch.nn.parallel.DistributedDataParallel(net, find_unused_parameters=steady)
        for _ in range(2 if "settled" in words else 0):
            model(data[:4, :8]).sum().mul(0).backward()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        torch.manual_seed(100 + s.rank)
        s.track(model=net, optimizer=optimizer)
        batches = s.batches(range(len(data)), 4, seed=1, collate_fn=list)
        record(began=os.getpid(), size=s.size, backend=s._attempt.ranks.backend, local=os.environ["LOCAL_RANK"])
        for step in s.steps(int(steps)):
            rows = data[next(batches)]
            optimizer.zero_grad()
            loss = (model(rows[:, :8]) - rows[:, 8:]).pow(2).mean()
            loss.backward()
            optimizer.step()
            s.log(loss=loss.item())
            record(step=step, loss=loss.item().hex())
            time.sleep(float(seconds))
    digest = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
    for tensor in net.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    for state in optimizer.state_dict()["state"].values():
        for value in state.values():
            digest.update(torch.as_tensor(value).numpy().tobytes())
    record(final=digest.hexdigest())
    del model
    if dist.is_initialized():
        dist.destroy_process_group()


main()
