"""Working plugins, one of each kind, that ``bigopt new-plugin`` copies under a name of the user's."""
