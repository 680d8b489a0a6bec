"""Generative adversarial networks that train without tuning.

``GAN().fit(data)``, then ``sample``, ``predict``, ``score``, ``evaluate``, ``save`` and ``load``. Importing this
package does nothing else: torch is imported when the first name is used.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ganlib.gan import GAN

__all__ = ["GAN", "__version__"]


def __getattr__(name: str) -> object:
    """Import the estimator on first use, so that ``import ganlib`` stays free of torch (PEP 562)."""
    if name == "GAN":
        from ganlib.gan import GAN

        return GAN
    raise AttributeError(f"module 'ganlib' has no attribute {name!r}; it has {__all__}")
