"""What every daemon shares: server runner, auth, limits, error handlers, the HTTP client. Knows no route."""
