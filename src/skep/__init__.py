"""skep runs LLMs on the machines you have, and proves that they work."""

__version__ = "0.1.0"
