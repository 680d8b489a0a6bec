"""Forks trainings on request: torch is imported once, so that a killed life costs a fraction of a second.

Reads lines ``RUN ITEMS`` on standard input; for each it forks a child that fits the run, prints the child's process
number, waits for it, and prints ``done STATUS`` (negative: the signal that killed it).
"""

import os
import sys

import torch

import ganlib.fitting
from ganlib.gan import GAN
from ganlib.recipes.r3 import r3

torch.set_num_threads(1)  # also: a process with running threads must not fork


def life(run: str, items: int) -> None:
    ganlib.fitting.LOG_STEPS = 3
    recipe = r3(network="compact", width=4, latent=8, batch_items=32, penalty_every_steps=2)
    GAN(recipe, seed=3).fit("digits", items=items, run=run, progress="none", checkpoint_seconds=0.0)


for line in sys.stdin:
    run, items = line.rsplit(" ", 1)
    child = os.fork()
    if child == 0:
        try:
            life(run, int(items))
        except BaseException as error:
            print(f"error {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print("done", os.waitstatus_to_exitcode(status), flush=True)
