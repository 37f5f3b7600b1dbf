"""Real daemons for tests: hives, queens and a model hub, each with folders, ports and logs of its own."""
