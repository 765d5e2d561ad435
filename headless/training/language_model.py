"""A trained module as a Hugging Face model with an LM head."""

from typing import Literal

from transformers import PreTrainedModel

from headless.errors import HeadlessError
from headless.objectives import LMHead
from headless.training.hugging_face import to_hugging_face
from headless.training.module import PretrainingModule

HeadName = Literal["auto", "calibrated", "tied", "trained"]


def choose_head(module: PretrainingModule, head: HeadName) -> tuple[str, LMHead]:
    """The LM head of a run, and the name of its kind.

    Args:
        module: of the run.
        head: "trained" is a cross-entropy head, "calibrated" the one that completes a contrastive
            objective with the unigram distribution, "tied" the input embeddings alone (what a
            reader who reuses the weights in the usual way sees), "auto" the first of the first two
            that the run has.
    """
    implied = module.lm_head()
    kind = "calibrated" if implied.is_calibrated else "trained"
    if head in ("auto", kind):
        return kind, implied
    if head == "tied":
        transform = implied.transform if implied.is_calibrated else None
        weight_VD = implied.weight_VD if implied.is_calibrated else module.embedding_VD
        return "tied", LMHead(weight_VD, None, transform)
    raise HeadlessError(
        f"this run was trained with {module.objective.describe()}: its heads are {kind} and tied, "
        f"not {head}"
    )


def language_model(
    module: PretrainingModule, head: HeadName = "auto"
) -> tuple[str, PreTrainedModel]:
    """A copy with a head, whose hidden states are the module's, and the name of the head's kind.

    The module is on the CPU, as `PretrainingModule.from_checkpoint` gives it.
    """
    name, lm_head = choose_head(module, head)
    converted = to_hugging_face(
        module.backbone, lm_head, embedding_VD=module.embedding_VD, fold=False
    )
    return name, converted.model
