"""The leak ledger: what the test process holds, before and after each test."""
