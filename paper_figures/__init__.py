"""The papers' figures and tables, one file each, drawn from saved results."""
