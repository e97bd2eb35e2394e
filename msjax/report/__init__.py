"""Pages and figures from saved results."""

from msjax.errors import require_extra

require_extra("report", "jinja2", "matplotlib")
