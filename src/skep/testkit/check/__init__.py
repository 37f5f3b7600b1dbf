"""`skep check URL`: does a server that claims OpenAI's API keep what it promises? Clause by clause, with evidence.

A clause is one rule; it asks the server and gives a verdict. `reference` is a small server that keeps all of them, and
can be told to break any one: that is how each clause is itself proved.
"""
