"""A proxy in front of servers that speak OpenAI's chat protocol: answers are revised by a rule."""

from msjax.errors import require_extra

require_extra("serve", "starlette", "uvicorn", "aiohttp", "prometheus_client")
