"""What the tasks share whose generators make pictures of pictures, and nothing of latents."""

from collections.abc import Callable
from typing import ClassVar, NoReturn

import torch
from torch import Tensor

from ganlib.core import Condition, Draws, Task
from ganlib.errors import UsageError


class FromPictures(Task):
    """Nothing can be drawn; pictures of any size are transformed."""

    draws: ClassVar[bool] = False
    transforms: ClassVar[bool] = True
    any_size: ClassVar[bool] = True

    def latent(self, num_items: int, draws: Draws) -> NoReturn:
        raise UsageError(
            "this model makes pictures of pictures and draws none of its own: give it some (predict, ganlib predict)"
        )

    def sample(self, generator: Callable[..., Tensor], latent: Tensor, condition: Condition) -> NoReturn:
        return self.latent(len(latent), Draws(torch.Generator()))
