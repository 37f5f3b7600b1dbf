"""Structured logs, metrics registries and trace context. Knows not who logs."""
