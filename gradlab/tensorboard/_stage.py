"""How the description of a tag names the stage of its gradients."""

STAGE = "Gradient stage: "
