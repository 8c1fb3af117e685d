"""Named objects: state that rules and maps refer to by name."""
