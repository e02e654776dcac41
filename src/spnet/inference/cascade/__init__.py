"""Several networks from cheap to dear: an image goes on while the member is not sure enough.

network     the cascade: its members, their confidences, the eager way through
run         the loop over members, whatever runs them; its trace
engine      one `Engine` a member behind the door of one
knobs       what every setting of thresholds and confidences would cost and answer
plan, time  the setting for a budget in multiply-adds, in milliseconds
evaluate    figures, by member
"""

from spnet.inference.cascade.network import Cascade, Model
from spnet.inference.cascade.run import sureness

__all__ = ["Cascade", "Model", "sureness"]
