"""A web server's directory as a source for `datasources`."""
