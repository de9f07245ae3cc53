"""Tests in programs that others made: a browser, and a checker of accessibility."""
