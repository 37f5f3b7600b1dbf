"""Five verbs (get, list, txn, lease, watch) over SQLite or etcd. Knows not what it stores."""
