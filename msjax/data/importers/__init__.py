"""Files of other projects, read as what msjax records."""
