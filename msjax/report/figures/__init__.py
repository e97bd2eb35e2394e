"""Figures, tables and the report; every module reads saved results and fits nothing anew."""

from msjax.errors import require_extra

require_extra("report", "matplotlib")
