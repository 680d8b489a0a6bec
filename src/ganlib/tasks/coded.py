"""Drawing items from a latent whose first columns are a code that can be read off the item."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from ganlib.core import Batch, Condition, Draws, Pair, Task, Terms, Verdict


@dataclass(frozen=True)
class GenerateCoded(Task):
    """Both networks raise the mutual information of code and item: E log Q(c | G(z, c)) + H(c) is a bound from below.

    Chen et al. 2016, arXiv:1606.03657, equation 5. Q shares the discriminator's features. The terms, in both turns, are
    -log Q of the ``category`` (a softmax) and of the ``continuous`` codes (normal, of variance 1, summed over them);
    the entropy H(c) is constant and left out.

    Latents are normal throughout, so that truncation and ways between them mean what they do elsewhere: the largest of
    the first `num_categories` columns is the category, each uniform; the next `num_continuous`, by the distribution
    function of the normal, are uniform from -1 to 1; `noise_width` more are what they are.
    """

    make_generator: Callable[[], nn.Module]
    make_discriminator: Callable[[], nn.Module]
    noise_width: int
    num_categories: int
    num_continuous: int

    def networks(self) -> tuple[nn.Module, nn.Module]:
        return self.make_generator(), self.make_discriminator()

    def latent(self, num_items: int, draws: Draws) -> Tensor:
        return draws.normal(num_items, self.num_categories + self.num_continuous + self.noise_width)

    def draw(self, batch: Batch, draws: Draws) -> Batch:
        return {**batch, "latent": self.latent(len(batch["real"]), draws)}

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        category, continuous, _ = self.code(batch["latent"])
        fake = self.sample(generator, batch["latent"], None)
        return Pair(batch["real"], fake, extra={"category": category, "continuous": continuous})

    def sample(self, generator: Callable[..., Tensor], latent: Tensor, condition: Condition) -> Tensor:
        category, continuous, noise = self.code(latent)
        return generator(torch.cat([one_hot(category, self.num_categories).to(noise.dtype), continuous, noise], 1))

    def discriminator_terms(self, pair: Pair, real: Verdict, fake: Verdict) -> Terms:
        assert fake.classes is not None
        logits, mean = fake.classes.tensor_split([self.num_categories], 1)
        squared = (pair.extra["continuous"] - mean).square() + math.log(2 * math.pi)
        return {"category": cross_entropy(logits, pair.extra["category"]), "continuous": 0.5 * squared.sum(1).mean()}

    def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
        return self.discriminator_terms(pair, fake, fake)

    def code(self, latent: Float[Tensor, "batch latent"]) -> tuple[Tensor, Tensor, Tensor]:
        """The category [batch], the continuous codes [batch, k] and the noise of latents."""
        first, second, noise = latent.tensor_split([self.num_categories, self.num_categories + self.num_continuous], 1)
        return first.argmax(1), torch.erf(second / math.sqrt(2)), noise
