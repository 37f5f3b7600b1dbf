"""A small server that keeps every clause, and breaks any one of them on request: how the check is itself proved.

It serves a language model of no size: its words follow from the prompt and the seed. Slots, a queue, a context, keys
and cancellation are real. A fault is named after the clause that must find it.
"""

from skep.testkit.check.reference.server import Reference as Reference
