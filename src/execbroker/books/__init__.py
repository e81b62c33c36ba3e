"""Who holds what: the only keeper of the timeline and the only writer of bookings."""
