"""Faults, seeded and replayable: what processes do to each other, and what networks do to bytes.

| file | what it alone knows |
| --- | --- |
| `process` | a worker that dies, hangs, forgets, forks |
| `stream` | one connection's bytes: cut, delayed, reset, slowed |
| `proxy` | a TCP proxy that does it to servers that are not ours |
"""
