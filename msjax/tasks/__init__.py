"""Questions, prompts, and what an answer is: reading and grading."""
