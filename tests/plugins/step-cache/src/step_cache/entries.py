"""What ditbench reads before anything is built. Import no torch here: lists and plans stay quick."""

from ditbench.methods.entries import Entry

ENTRY = Entry(
    target="step_cache.modifier:StepCache",
    summary="computes attention and MLP in every so-manieth step, and uses their outputs again in between",
)
