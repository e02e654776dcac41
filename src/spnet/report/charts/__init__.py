"""Small charts as inline SVG: pure functions, numbers in, markup out. Colours are CSS variables and follow the page."""

from spnet.report.charts.heat import heat_map
from spnet.report.charts.histogram import histogram
from spnet.report.charts.lines import Line, Mark, line_chart
from spnet.report.charts.scatter import SHAPES, Point, scatter

__all__ = ["SHAPES", "Line", "Mark", "Point", "heat_map", "histogram", "line_chart", "scatter"]
