"""What has been promised and what became of it, on disk: one row per offerset, session, booking, event and measure."""
