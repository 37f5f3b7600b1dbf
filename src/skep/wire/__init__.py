"""Versioned messages and their codecs: OpenAI, worker events, node protocol, handoff, errors, SSE. No I/O."""
