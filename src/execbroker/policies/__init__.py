"""Who may use a platform, for what, and how much; pure."""
