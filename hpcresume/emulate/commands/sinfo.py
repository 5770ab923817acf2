"""sinfo: partitions and nodes as a table (sinfo(1))."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from hpcresume.emulate.commands.call import Call, Reply
from hpcresume.emulate.controller import Controller
from hpcresume.emulate.getopt_long import OptionError, read_options
from hpcresume.emulate.hostlist import compress, expand
from hpcresume.emulate.nodes import Node, Partition
from hpcresume.emulate.option_tables import SINFO
from hpcresume.emulate.slurm_time import limit_text, stamp
from hpcresume.io.users import user_name

__all__ = ["node_state", "sinfo"]

DEFAULT = "%9P %.5a %.10l %.6D %.6t %N"
REASONS = "%20E %9u %19H %N"
SUMMARY = "%9P %.5a %.10l %.16F %N"
BY_NODE = "%8N   %.5D %.9P %6t"
BY_NODE_LONG = "%8N   %.5D %.9P %.11T %4c %.8z %.6m %.8d %.6w %.8f %20E"
HEADINGS = {
    "A": "NODES(A/I)", "C": "CPUS(A/I/O/T)", "D": "NODES", "E": "REASON", "F": "NODES(A/I/O/T)", "G": "GRES",
    "M": "PREEMPT_MODE", "N": "NODELIST", "O": "CPU_LOAD", "P": "PARTITION", "R": "PARTITION", "T": "STATE",
    "X": "SOCKETS", "Y": "CORES", "Z": "THREADS", "a": "AVAIL", "c": "CPUS", "d": "TMP_DISK", "e": "FREE_MEM",
    "f": "AVAIL_FEATURES", "h": "OVERSUBSCRIBE", "l": "TIMELIMIT", "m": "MEMORY", "n": "HOSTNAMES", "p": "PRIO_TIER",
    "t": "STATE", "u": "USER", "H": "TIMESTAMP", "w": "WEIGHT", "z": "S:C:T",
}  # fmt: skip
_COMPACT = {"allocated": "alloc", "mixed": "mix", "completing": "comp", "drained": "drain", "draining": "drng"}
_NAMES = {
    "available": "a", "cpus": "c", "cpusstate": "C", "cpusload": "O", "disk": "d", "features": "f", "features_act": "f",
    "freemem": "e", "gres": "G", "memory": "m", "nodeaddr": "n", "nodehost": "n", "nodelist": "N", "nodes": "D",
    "nodeai": "A", "nodeaiot": "F", "oversubscribe": "h", "partition": "P", "partitionname": "R", "preemptmode": "M",
    "prioritytier": "p", "reason": "E", "sockets": "X", "cores": "Y", "threads": "Z", "socketcorethread": "z",
    "statecompact": "t", "statelong": "T", "time": "l", "timestamp": "H", "user": "u", "weight": "w",
}  # fmt: skip
"""Name of --Format → letter of --format."""
_SPEC = re.compile(r"%(\.?)([0-9]{0,4})([A-Za-z])")


def node_state(node: Node, now: float) -> str:
    """Its state in words, with `*` when it does not answer."""
    if now < node.down_until:
        return "down*"
    if node.state == "down":
        return "down"
    if node.state == "drain":
        return "draining" if node.jobs else "drained"
    if not node.jobs:
        return "idle"
    return "allocated" if node.free == 0 else "mixed"


def sinfo(call: Call, controller: Controller) -> Reply:
    """List partitions and nodes."""
    try:
        pairs, _ = read_options(call.words, SINFO, program="sinfo", permute=True)
        options = {name: value or "" for name, value in pairs}
        wanted = set(expand(options["nodes"])) if "nodes" in options else None
    except OptionError as error:
        return Reply(err=error.text, code=1)
    except ValueError:
        return Reply(err="sinfo: error: Invalid node list\n", code=1)
    if "version" in options:
        return Reply(out=f"slurm {controller.settings.slurm}\n")
    nodes = [n for n in controller.nodes.values() if wanted is None or n.name in wanted]
    names = options.get("partition", "").split(",") if options.get("partition") else None
    partitions = [p for p in controller.settings.partitions if names is None or p.name in names]
    errors = ""
    text = options.get("format") or call.environ.get("SINFO_FORMAT") or _default(options)
    if "Format" in options:
        text, errors = _from_names(options["Format"])
    if "list-reasons" in options:
        nodes = [node for node in nodes if node.reason and not node.up(time.time())]
        partitions = [controller.default_partition]
    rows = [row for p in partitions for row in _groups(p, nodes, controller, options, text)]
    if "Node" in options:
        order = [node.name for node in nodes]
        rows.sort(key=lambda row: order.index(row["N"]))
    if not rows and partitions and "list-reasons" not in options:
        rows = [_row(p, [], controller) for p in partitions] if wanted is None else []
    out = _print(text, rows, header="noheader" not in options)
    if "long" in options and "noheader" not in options:
        out = time.strftime("%a %b %d %H:%M:%S %Y\n") + out
    return Reply(out=out, err=errors)


def _from_names(text: str) -> tuple[str, str]:
    """--Format as --format, and what is said about a name that is none."""
    parts, errors = [], ""
    for item in filter(None, text.split(",")):
        name, _, size = item.partition(":")
        letter = _NAMES.get(name.strip().lower())
        if letter is None:
            errors += f"sinfo: error: Invalid job format specification: {name}\n"
            continue
        right, width = size.startswith("."), size.removeprefix(".")
        parts.append(f"%{'.' if right else ''}{width if width.isdecimal() else '20'}{letter}")
    return "".join(parts), errors


def _default(options: dict[str, str]) -> str:
    if "summarize" in options:
        return SUMMARY
    if "list-reasons" in options:
        return REASONS
    if "Node" in options:
        return BY_NODE_LONG if "long" in options else BY_NODE
    return DEFAULT


def _groups(
    partition: Partition, nodes: Sequence[Node], controller: Controller, options: dict[str, str], text: str
) -> list[dict[str, str]]:
    """One row a node, or one for all nodes in the same state."""
    own = [n for n in nodes if not partition.nodes or n.name in partition.nodes]
    now = time.time()
    if "states" in options:
        states = {s.lower().rstrip("*") for s in options["states"].split(",")}
        own = [n for n in own if {node_state(n, now).rstrip("*"), _compact(node_state(n, now)).rstrip("*")} & states]
    if "Node" in options or "%n" in text or "list-reasons" in options:
        return [_row(partition, [node], controller) for node in own]
    if "summarize" in options or not re.search(r"%\.?[0-9]*[tTCEA]", text):
        return [_row(partition, own, controller)]
    groups: dict[str, list[Node]] = {}
    for node in own:
        groups.setdefault(node_state(node, now), []).append(node)
    return [_row(partition, group, controller) for group in groups.values()]


def _compact(state: str) -> str:
    star = "*" if state.endswith("*") else ""
    return _COMPACT.get(state.rstrip("*"), state.rstrip("*")) + star


def _row(partition: Partition, nodes: Sequence[Node], controller: Controller) -> dict[str, str]:
    now = time.time()
    states = [node_state(node, now) for node in nodes]
    state = states[0] if states else "n/a"
    busy = sum(bool(node.jobs) for node in nodes)
    gone = sum(s.startswith(("down", "drain")) for s in states)
    used, cpus = sum(node.used for node in nodes), sum(node.cpus for node in nodes)
    away = sum(n.cpus for n, s in zip(nodes, states, strict=True) if s.startswith("down"))
    default = "*" if partition == controller.default_partition else ""
    one = nodes[0].cpus if nodes else 0
    return {
        "P": partition.name + default, "R": partition.name, "a": "up",
        "l": limit_text(partition.limit, full=False, missing="infinite"), "D": str(len(nodes)),
        "t": _compact(state), "T": state, "N": compress(n.name for n in nodes),
        "F": f"{busy}/{len(nodes) - busy - gone}/{gone}/{len(nodes)}", "A": f"{busy}/{len(nodes) - busy - gone}",
        "c": str(one), "C": f"{used}/{cpus - used - away}/{away}/{cpus}", "m": "1", "G": "(null)",
        "n": nodes[0].name if nodes else "", "E": (nodes[0].reason or "none") if nodes else "none",
        "z": f"{one}:1:1", "d": "0", "w": "1", "f": "(null)", "e": "N/A", "O": "N/A", "X": str(one), "Y": "1", "Z": "1",
        "u": user_name(), "H": stamp(nodes[0].since if nodes else None),
        "p": str(partition.tier), "h": "NO", "M": partition.preempt.upper(),
    }  # fmt: skip


def _print(text: str, rows: Sequence[dict[str, str]], *, header: bool) -> str:
    def line(values: dict[str, str]) -> str:
        def fill(match: re.Match[str]) -> str:
            cell, width = values.get(match[3], ""), int(match[2] or 0)
            cell = cell[:width] if width else cell
            return cell.rjust(width) if match[1] else cell.ljust(width)

        return _SPEC.sub(fill, text) + "\n"

    return (line(HEADINGS) if header else "") + "".join(line(row) for row in rows)
