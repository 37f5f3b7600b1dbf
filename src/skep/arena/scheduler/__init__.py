"""kube-scheduler's decisions on a simulated cluster: queue, filters, scores, preemption, and why.

The semantics are those of kube-scheduler 1.31 to 1.34 with its default profile; `docs/arena-cluster.md` lists them and
what is left out (volumes, extenders, dynamic resources).
"""
