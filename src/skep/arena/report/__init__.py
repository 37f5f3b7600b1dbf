"""What a benchmark says: statistics with confidence intervals, as JSON, Markdown and one HTML page with plots."""

from skep.arena.report.html import render_html
from skep.arena.report.markdown import render_markdown
from skep.arena.report.stats import Standing, standings

__all__ = ["Standing", "render_html", "render_markdown", "standings"]
