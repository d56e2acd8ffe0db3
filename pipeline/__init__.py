"""From files to features: manifests, decoding, log-mels, frozen text states, and the extraction that fills a store."""
