"""SQLite databases as sources for `datasources`."""
