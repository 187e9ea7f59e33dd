"""Training data made with rewards, as Python functions; on the command line ``llmalign data``."""

from llmalign.curation.hard import Answering, Hard, select_hard
from llmalign.curation.rubrics import Contrasted, contrast_rubrics

__all__ = ["Answering", "Contrasted", "Hard", "contrast_rubrics", "select_hard"]
