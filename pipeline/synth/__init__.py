"""The generated demo collection: what its songs sound like, say and are labelled with."""
