"""The controllers of ReplicaSets, Deployments, StatefulSets and Jobs: from what is declared to pods that exist."""
