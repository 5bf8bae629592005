from .collection import FigureGroups as FigureGroups
from .collection import report_figures as report_figures
from .confidence import calibration_figure as calibration_figure
from .confidence import selective_figure as selective_figure
from .figure import Figure as Figure
from .ranking import ranking_figures as ranking_figures
from .training_curves import information_figure as information_figure
from .training_curves import learning_figures as learning_figures
