"""Models with generators made by hand, untrained, for tests of what looks into their latents."""

from typing import Any

from torch import Tensor, nn

from ganlib import model
from ganlib.core import Objective, OptimiserSettings, Plan, Spec, constant
from ganlib.losses import NonSaturating
from ganlib.model import Model
from ganlib.recipe import Recipe, Setting
from ganlib.recipes.gan import gan
from ganlib.tasks.generate import Generate


class Linearly(nn.Module):
    """tanh(B relu(A z)) as pictures, by given matrices."""

    def __init__(self, first: Tensor, second: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.first = nn.Linear(first.shape[1], first.shape[0])
        self.second = nn.Linear(second.shape[1], second.shape[0])
        self.first.weight.data, self.second.weight.data = first, second

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.second(self.first(latent).relu()).tanh().unflatten(1, self.shape)


def of_generator(generator: nn.Module, latent: int, shape: tuple[int, ...] = (1, 8, 8), classes: int = 0) -> Model:
    """A model that draws by this generator, whatever its recipe says."""
    spec = Spec("image", shape, tuple("abcdefghijklmnop"[:classes]))
    setting = Setting(spec, 100, "cpu", conditional=classes > 0)
    adam = OptimiserSettings(constant(1e-3))
    task = Generate(lambda: generator, lambda: None, latent)
    plan = Plan(task, Objective(NonSaturating()), adam, adam, 4, constant(0), 100)
    share = (1 / classes,) * classes if classes else ()
    return Model(gan(), setting, plan, generator.eval().requires_grad_(False), None, "cpu", share)


def of_recipe(recipe: Recipe, spec: Spec, *, conditional: bool = False) -> Model:
    """An untrained model of a recipe, which :func:`ganlib.model.save` can write."""
    setting = Setting(spec, 100, "cpu", budget_seconds=60.0, conditional=conditional)
    plan = recipe.plan(setting)
    generator, discriminator = plan.task.networks()
    share = (1 / setting.num_classes,) * setting.num_classes if conditional else ()
    facts: dict[str, Any] = model.to_json(recipe, setting, share, 0)
    judge = None if discriminator is None else discriminator.eval().requires_grad_(False)
    return Model(recipe, setting, plan, generator.eval().requires_grad_(False), judge, "cpu", share, facts)
