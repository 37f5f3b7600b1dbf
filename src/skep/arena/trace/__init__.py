"""SimKube traces: read and written byte for byte, checked, streamed, made, compared."""
