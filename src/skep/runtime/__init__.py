"""The inference runtime: backends, the batching engine, the GGUF reader, the tiny model. Knows no HTTP."""
