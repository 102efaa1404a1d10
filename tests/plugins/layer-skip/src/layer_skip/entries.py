"""What ditbench reads before anything is built. Import no torch here: lists and plans stay quick."""

from ditbench.methods.entries import Entry

ENTRY = Entry(
    target="layer_skip.modifier:LayerSkip",
    summary="leaves out whole layers of any method whose blocks show their units",
    preset={},  # options bound before the user's
)
