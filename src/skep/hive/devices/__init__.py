"""The devices of this machine: a source for each way to find them, and the inventory that asks them again and again."""
