"""Checkpoints of the field's trainers: odd things beside and around the weights. python torch_extras.py OUT"""
import argparse, collections, os, sys
import numpy as np, torch
out = sys.argv[1]
w, n = torch.tensor([1.0, 2.0]), torch.tensor(7)
sd = {"w": w, "n": n}
class Mine:
    def __init__(self): self.x = 1
class MyDict(dict): pass
class MyList(list): pass
extras = dict(counter=collections.Counter([1, 1, 2]), args=argparse.Namespace(lr=0.1), device=torch.device("cpu"),
              dtype=torch.float32, set={1, 2}, frozen=frozenset([3]), complex=1j, bytearray=bytearray(b"x"), big=bytearray(300),
              size=torch.Size([1]), bytes=b"ab", none=None, scalar=np.float64(91.5), array=np.arange(3), mine=Mine(),
              mydict=MyDict(a=1), mylist=MyList([1]), default=collections.defaultdict(list, a=[1]), huge=2 ** 100, path=__import__("pathlib").Path("x"),
              func=os.getcwd)
def put(name, value, **k): torch.save(value, f"{out}/{name}", **k)
for protocol in (2, 4, 5): put(f"torch_extras_{protocol}.pth", {"state_dict": sd, **extras}, pickle_protocol=protocol)
put("torch_list.pkl", [sd, {"w": w * 2, "n": n}])
put("torch_ema.pth", {"model_state_dict": sd, "state_dict_ema": {"w": w * 2, "n": n}, "student": {"deep.er": sd}})
put("torch_object_inside.pth", {"w": w, "odd": np.arange(3)})
p = torch.nn.Parameter(w.clone()); p.tag = "kept"
t = w.clone(); t.note = "x"
put("torch_wrapped_tensors.pth", {"p": p, "t": t, "expanded": torch.ones(1).expand(16), "grad": w.clone().requires_grad_()})
class Net(torch.nn.Module):
    def __init__(self): super().__init__(); self.l = torch.nn.Linear(1, 1)
    def forward(self, x): return self.l(x)
torch.jit.save(torch.jit.script(Net()), f"{out}/torch_script.pt")
put("torch_own_module.pth", {"epoch": 1, "model": Net()})
# Weights under keys of one's own: one set, several; and tensors that are not what their storage holds.
named = {"l.weight": w}
put("torch_beside.pth", {"model": named, "teacher": {"l.weight": w * 2}, "optimizer": {"state": {0: {"exp_avg": w}}}})
put("torch_only.pth", {"epoch": 3, "netC": named, "optC": {"state": {0: {"momentum_buffer": w}}}})
put("torch_several.pth", ({"l.weight": w}, {"acc": 91.5}, {"best": {"l.weight": w * 2}}))
put("torch_negated.pth", {"l.weight": torch.complex(w, w).conj().imag})
put("torch_complex.pth", {"l.weight": w.to(torch.complex64)})
put("torch_quantised.pth", {"l.bias": w, "l.weight": torch.quantize_per_tensor(w, 0.1, 0, torch.qint8)})
# torch.export.save: what names its members, without the paths of this machine that the real one holds.
with __import__("zipfile").ZipFile(f"{out}/torch_exported.pt2", "w") as z:
    for member in ("models/model.json", "data/weights/weight_0", "data/sample_inputs/model.pt"):
        z.writestr("torch_exported/" + member, "{}")
