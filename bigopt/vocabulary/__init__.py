"""The words that the core and every plugin share; imports nothing else of bigopt."""
