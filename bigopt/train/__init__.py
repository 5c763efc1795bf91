"""Training: the one way to fit a model, its evaluation, seeds and signals.

Lightning is imported when something is trained, not before.
"""

from bigopt.train.evaluate import evaluate, predict
from bigopt.train.fitter import Fitter
from bigopt.train.modes import STAY_EVAL
from bigopt.train.seeds import seed_all
from bigopt.train.signals import Signals

__all__ = ["STAY_EVAL", "Fitter", "Signals", "evaluate", "predict", "seed_all"]
