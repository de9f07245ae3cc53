"""Tests of the PostgreSQL connector, on the real server."""
