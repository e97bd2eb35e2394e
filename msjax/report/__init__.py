"""Pages and figures from saved results."""
