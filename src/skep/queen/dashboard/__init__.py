"""The dashboard: one page from the package, live by server-sent events, without any outside address."""
