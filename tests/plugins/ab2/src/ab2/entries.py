"""What ditbench reads before anything is built. Import no torch here: lists and plans stay quick."""

from ditbench.methods.entries import SamplerEntry

ENTRY = SamplerEntry(
    target="ab2.sampler:Ab2",
    summary="second order on the noise, one evaluation a step",
    options=("spacing", "clip", "weight"),  # what a suite may say beside name: fields of the sampler's Options
    predicts="noise",  # or "velocity": which models it fits
)
