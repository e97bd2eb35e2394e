"""Rules inside other libraries: one small file each, imported only where that library is there."""
