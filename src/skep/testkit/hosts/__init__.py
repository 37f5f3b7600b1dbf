"""Labs of hosts that rollout can reach, from a few milliseconds (loopback) to real sshd in namespaces and containers."""
