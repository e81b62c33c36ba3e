"""From a request to what is looked for, and from what is found, or not, to the answer."""
