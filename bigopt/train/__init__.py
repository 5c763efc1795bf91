"""Training: the one way to fit a model, its evaluation, seeds and signals.

Lightning is imported when something is trained, not before. What a Part can rely on in a fit:

- ``batch`` runs outside autocast; logits reach ``loss`` as float32, taps in the precision they were computed in.
- Convolutions' weights are in the channels-last memory format (``reshape`` and ``flatten`` work, ``view`` may not).
- A callback's ``on_train_epoch_end`` sees the epoch's values in ``trainer.callback_metrics``, and the averaged weights
  in the model when there are any; a value it logs there may be the run's monitor.
- ``on_train_epoch_start`` may be called twice for an epoch that was interrupted; tensors, modes and ``requires_grad``
  are put back after it. State of a callback is kept by its ``state_dict``.
- A module with running statistics whose parameters are all frozen stays in evaluation mode, as does one with the
  attribute :data:`STAY_EVAL`.
"""

from bigopt.train.evaluate import evaluate, predict
from bigopt.train.fitter import Fitter
from bigopt.train.modes import STAY_EVAL
from bigopt.train.seeds import seed_all
from bigopt.train.signals import Signals

__all__ = ["STAY_EVAL", "Fitter", "Signals", "evaluate", "predict", "seed_all"]
