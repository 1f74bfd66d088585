"""A Ray cluster of several nodes on this machine, in a process of its own: `python -m tests.faults.cluster NODES`.

Prints the head's address, then the pids of each node's raylet, the head's processes last, as JSON; ends with its input.
"""

from __future__ import annotations

import json
import sys

from ray.cluster_utils import Cluster


def pids(node: object) -> list[int]:
    """Ray's processes of a node."""
    return [info.process.pid for infos in node.all_processes.values() for info in infos]  # type: ignore[attr-defined]


if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(int(sys.argv[1]))]
    print(json.dumps({"address": cluster.address, "nodes": [pids(n) for n in nodes], "head": pids(cluster.head_node)}))
    sys.stdout.flush()
    sys.stdin.readline()
    cluster.shutdown()
