"""Features other than mel and lyrics: the interface, the registry, and a built-in extractor."""
