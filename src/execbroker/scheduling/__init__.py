"""Who holds what, when, and where something more fits. Pure: no I/O, no clock; times are whole seconds since 1970."""
