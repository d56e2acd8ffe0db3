"""Features other than the mel and the lyrics: the contract, the registry, and one that is built in."""
