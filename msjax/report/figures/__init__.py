"""Figures, tables and the report; every module reads saved results and fits nothing anew."""
