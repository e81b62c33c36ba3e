"""One place per kind: the class that travels, and what it means. Found by the entry points `execbroker.kinds`."""
