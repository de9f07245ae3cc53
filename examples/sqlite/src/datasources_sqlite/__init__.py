"""SQLite databases as a source for `datasources`."""
