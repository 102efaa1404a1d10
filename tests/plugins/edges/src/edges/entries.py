"""What ditbench reads before anything is scored. Import no torch here: lists and plans stay quick."""

from ditbench.harness.quality.metrics import MetricEntry
from ditbench.harness.store.records import Column

ENTRY = MetricEntry(
    target="edges.metric:measured",
    summary="mean difference between neighbouring pixels",
    version="1",  # raise it when it reports something else for the same samples
    columns=(Column(name="edges", title="edges", digits=2),),  # how the report shows its values
)
