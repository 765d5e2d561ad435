"""Everything that a model's weights say by themselves: no text, no forward pass."""

from torch import Tensor, nn

from headless.analysis.finding import Finding
from headless.analysis.states.families import backbone_of
from headless.analysis.weights_bulk import noise_finding
from headless.analysis.weights_gains import gains_finding, norms_of
from headless.analysis.weights_heads import circuits_finding, circuits_of
from headless.analysis.weights_measure import spectra_of
from headless.analysis.weights_movement import movement_finding, movements_of
from headless.analysis.weights_norms import norms_finding, sizes_of
from headless.analysis.weights_shapes import values_of
from headless.analysis.weights_tables import tables_finding, tables_of
from headless.analysis.weights_values import values_finding


def weight_findings(
    backbone: nn.Module,
    *,
    head: Tensor | None = None,
    initial: nn.Module | None = None,
    has_head: bool = True,
) -> list[Finding]:
    """Spectra, noise, circuits, values, gains and sizes of a model's weights.

    About 0.7 seconds a block of 576 dimensions on one core, and some seconds for a table of
    50,000 rows: every matrix is decomposed twice, with its entries as they are and shuffled.

    Args:
        backbone: of a family in `headless.analysis.states.families`, or a model that has one; its
            weights are only read, on the device where they are.
        head: the LM head's weight [V, D], where there is one; looked at if it is not the
            embedding table.
        initial: the same backbone before training: its spectra and histograms are drawn beside
            those of now, and the way of every matrix is measured.
        has_head: whether the model has one, the embedding table or another: else nothing is
            claimed of it.

    Returns:
        table_spectra, weight_noise, head_circuits, weight_values,
        weight_movement (with `initial`), norm_gains (if there are gains), weight_norms.

    Raises:
        HeadlessError: a family that is not in the table, a head of another width, an `initial`
            with other matrices.
    """
    backbone = backbone_of(backbone)
    initial = backbone_of(initial) if initial is not None else None
    spectra = spectra_of(backbone, initial)
    largest = {(s.block, s.role): float(s.values_R[0]) for s in spectra}
    findings = [
        tables_finding(tables_of(backbone, head, initial), has_head=has_head),
        noise_finding(spectra),
        circuits_finding(circuits_of(backbone)),
        values_finding(values_of(backbone, initial)),
        movement_finding(movements_of(backbone, initial)) if initial is not None else None,
        gains_finding(norms_of(backbone)),
        norms_finding(sizes_of(backbone, largest), backbone),
    ]
    return [finding for finding in findings if finding is not None]
