"""Questions, prompts, and what an answer is: reading and grading."""

from msjax.tasks import scorers
from msjax.tasks.benchmark import Question, Task
from msjax.tasks.grading import Grade, grade, grade_file
from msjax.tasks.samples import Samples, samples

__all__ = ["Grade", "Question", "Samples", "Task", "grade", "grade_file", "samples", "scorers"]
