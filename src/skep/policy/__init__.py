"""Pure decisions: placement, admission, restart, health, eviction, memory fit. State in, verdict out."""
