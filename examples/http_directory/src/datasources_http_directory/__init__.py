"""Directories that web servers list as sources for `datasources`."""
