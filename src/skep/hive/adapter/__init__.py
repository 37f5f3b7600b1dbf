"""How each kind of engine is started, looked at, proved and drained."""
