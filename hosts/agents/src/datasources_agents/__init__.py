"""References in chat, tools and MCP: what language models use of the sources of a registry."""
