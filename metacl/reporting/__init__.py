"""What a person sees of a run: progress while it lasts, the closing table, the report."""

from metacl.reporting.comparison import as_latex, compare, costs, reaching, read_results
from metacl.reporting.evaluation_files import check_report_folder, write_evaluation
from metacl.reporting.language import write_language_evaluation
from metacl.reporting.perplexity import perplexity_table
from metacl.reporting.progress import QuietProgress, RichProgress
from metacl.reporting.report import write_report
from metacl.reporting.table import closing_table
from metacl.reporting.verdict import verdict
from metacl.reporting.wording import cost

__all__ = [
    "QuietProgress",
    "RichProgress",
    "as_latex",
    "check_report_folder",
    "closing_table",
    "compare",
    "cost",
    "costs",
    "perplexity_table",
    "reaching",
    "read_results",
    "verdict",
    "write_evaluation",
    "write_language_evaluation",
    "write_report",
]
