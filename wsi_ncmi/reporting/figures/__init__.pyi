from .calibration import calibration_figure as calibration_figure
from .collection import FigureGroups as FigureGroups
from .collection import report_figures as report_figures
from .figure import Figure as Figure
from .information import information_figure as information_figure
from .learning import learning_figures as learning_figures
from .ranking import ranking_figures as ranking_figures
from .selective import selective_figure as selective_figure
