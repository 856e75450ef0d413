"""Adapt from an exported initialization with transformers, PEFT and torch alone; metacl is never imported.

Usage: plain_peft.py INIT BASE_MODEL_FOLDER EPISODE.json   (prints the query's probabilities as JSON)
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

init, base, episode = Path(sys.argv[1]), sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
torch.set_num_threads(1)
about = json.loads((init / "adaptation.json").read_text())
learner, inner = about["config"]["learner"], about["config"]["inner"]
assert about["config"]["objective"]["name"] == "proto_maml" and inner["optimizer"]["name"] == "sgd"

tokenizer = AutoTokenizer.from_pretrained(base)
model = PeftModel.from_pretrained(
    AutoModel.from_pretrained(base, attn_implementation="eager"), init, is_trainable=True
).eval()
adapter = {n: p for n, p in model.named_parameters() if p.requires_grad}


def features(texts):
    tokens = tokenizer(texts, truncation=True, max_length=learner["max_length"], padding=True, return_tensors="pt")
    hidden = model(**{k: tokens[k] for k in ("input_ids", "attention_mask")}).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1).float()
    return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def logits(texts):
    return learner["logit_scale"] * F.linear(features(texts), weight, bias)


targets = torch.tensor(episode["support_labels"])
with torch.no_grad():
    support = features(episode["support_texts"])
    means = torch.stack([support[targets == label].mean(0) for label in range(int(targets.max()) + 1)])
    weight, bias = 2 * means, -(means**2).sum(-1)
for _ in range(episode["steps"]):
    weight, bias = weight.detach().requires_grad_(), bias.detach().requires_grad_()
    loss = F.cross_entropy(logits(episode["support_texts"]), targets)
    grads = torch.autograd.grad(loss, [weight, bias, *adapter.values()])
    sizes = about["step_sizes"]
    with torch.no_grad():
        weight = weight - sizes["head.weight"] * grads[0]
        bias = bias - sizes["head.bias"] * grads[1]
        for (name, parameter), grad in zip(adapter.items(), grads[2:], strict=True):
            parameter -= sizes["adapter." + name.replace(".default.", ".")] * grad
with torch.no_grad():
    probabilities = logits(episode["query_texts"]).softmax(-1)
assert "metacl" not in sys.modules
print(json.dumps(probabilities.tolist()))
