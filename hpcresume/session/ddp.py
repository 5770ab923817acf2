"""Says when a training is wrapped such that a resume cannot give the same bits: DistributedDataParallel on many ranks.

DDP lays its buckets out in the order of the parameters when it is made, and anew, in the order in which the gradients
came, before the second step of its life; on more than two ranks the order of a sum depends on where in a bucket it
stands. An attempt makes DDP anew, so its first step is summed in another order than the uninterrupted training's
(torch/csrc/distributed/c10d/reducer.cpp, should_rebuild_buckets; seen with gloo on 4 ranks, static_graph or not).
Torch has no way to hand a layout to DDP; only the user can keep it from changing.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

__all__ = ["unsteady_buckets"]

SETTLED = 1
"""From this index of DDP's own count of steps on it has its final layout."""


def unsteady_buckets() -> str:
    """What to say of the DDP modules of this process, "" when there is none whose sums a resume may change."""
    wrapper = getattr(sys.modules.get("torch.nn.parallel.distributed"), "DistributedDataParallel", None)
    distributed = sys.modules.get("torch.distributed")
    if wrapper is None or distributed is None or not (distributed.is_available() and distributed.is_initialized()):
        return ""
    if distributed.get_world_size() <= 2:
        return ""
    size = max((_unsteady_ranks(each) for each in gc.get_objects() if issubclass(type(each), wrapper)), default=0)
    if not size:
        return ""
    return (
        f"DistributedDataParallel on {size} ranks lays its buckets out anew in its second step, so what follows "
        "a resume may differ in the last bit; with find_unused_parameters=True it does not"
    )


def _unsteady_ranks(module: Any) -> int:
    """How many ranks sum in an order that will change; 0 when there are too few to matter, or it will not."""
    group = getattr(module, "process_group", None)  # None while the module is being made
    if group is None or group.size() <= 2 or getattr(module, "find_unused_parameters", False):
        return 0
    facts: dict[str, Any] = getattr(module, "_get_ddp_logging_data", dict)()
    return 0 if int(facts.get("iteration", 0)) >= SETTLED else int(group.size())
