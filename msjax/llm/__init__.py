"""Models and servers that answer, and the loop that asks them."""
