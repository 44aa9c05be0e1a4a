from .coherence import Moments as Moments
from .coherence import alpha as alpha
from .coherence import alpha_unbiased as alpha_unbiased
from .coherence import m_coherence as m_coherence
from .coherence import moments as moments
from .minibatches import alpha_from_minibatches as alpha_from_minibatches
