"""Frozen: connectors as the first authors wrote them."""
