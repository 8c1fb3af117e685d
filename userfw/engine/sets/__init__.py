"""Sets and maps: elements in typed columns, and one index class for each shape of key."""
