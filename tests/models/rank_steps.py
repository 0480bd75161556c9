"""What a run over ranks is held to: the same steps in one process."""

from torch.nn.functional import binary_cross_entropy_with_logits


def state(model, optimizer):
    tensors = {**model.state_dict(), **optimizer.tensors()}
    return {name: tensor.numpy().copy() for name, tensor in tensors.items()}


def in_one_process(model, optimizer, encoder, batches):
    """Weights and moments after `Optimizer.step` of each batch; losses without and with penalty."""
    losses = []
    for batch in batches:
        encoded = encoder.encode(batch)
        rows = model.embedding.rows(encoded)
        outputs = model.outputs(encoded, rows)
        loss = binary_cross_entropy_with_logits(outputs.logits, encoded.labels)
        (loss + outputs.penalty).backward()
        optimizer.step(encoded, rows)
        losses.append([loss.item(), (loss + outputs.penalty).item()])
    return state(model, optimizer), losses
