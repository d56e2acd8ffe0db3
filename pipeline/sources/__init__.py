"""Tables, folders and known data sets: anything becomes a list of tracks."""
