"""The life cycles of pool, replica, node and job: a table each, and one interpreter. No I/O, no clock."""
