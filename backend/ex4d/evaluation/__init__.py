"""Evaluation: methods' results on data sets, by protocols, with and without true views.

The flow: a data set's clips (`datasets`), the tasks that a protocol makes of them (`protocols`), every method's result
of each (`results`), what is measured of it (`measuring` and the modules ``*_measures``), and tables (`summary`,
`report_files`, `html_report`).
"""

from ex4d.evaluation.clips import EvaluationClip, Task
from ex4d.evaluation.errors import EvaluationError
from ex4d.evaluation.results import Method
from ex4d.evaluation.run import Evaluation, evaluate

__all__ = ["Evaluation", "EvaluationClip", "EvaluationError", "Method", "Task", "evaluate"]
