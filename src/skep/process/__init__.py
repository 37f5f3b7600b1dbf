"""Owning a child process: start, readiness, group, reaping, log file. Knows not what the child is."""
