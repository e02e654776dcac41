"""All figures, by matplotlib in one look (`theme.py`): those of a page come as inline SVG, numbers in, markup out."""

from spnet.report.figures.heat import heat_map
from spnet.report.figures.lines import Line, Mark, line_chart
from spnet.report.figures.points import Point, histogram, sample, scatter

__all__ = ["Line", "Mark", "Point", "heat_map", "histogram", "line_chart", "sample", "scatter"]
