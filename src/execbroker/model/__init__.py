"""The spoken language: what the published schema says, one class per schema, and the waist between kinds and platforms."""
