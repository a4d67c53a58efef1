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
